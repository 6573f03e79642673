//! Policies: columns, `describe`, and `policy matrix`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value as Json;

use super::Failure;
use super::capture::escaped;
use super::columns::{Column, joined, list, text};
use crate::control::client::Client;
use crate::control::policies::{MatrixView, PolicyView};
use crate::control::table::render;

/// What can be asked of policies.
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Show which pods can reach which, and at which ports: computed, without sending anything
    #[command(after_help = "Example: vswitch policy matrix -n shop --port tcp/80,udp/53 -o svg > shop.svg")]
    Matrix(Matrix),
}

#[derive(Debug, Args)]
pub(super) struct Matrix {
    /// Only pods of this namespace; without it, those of all
    #[arg(short, long)]
    namespace: Option<String>,
    /// Ports that each pod is asked for, as tcp/80,udp/53; without it those that its containers name
    #[arg(short, long, value_name = "PORTS")]
    port: Option<String>,
    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Drawing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Drawing {
    /// A row for each pod that opens, a column for each that is asked.
    Table,
    /// Every answer with its reason.
    Json,
    /// A picture.
    Svg,
}

pub(super) const COLUMNS: &[Column] = &[
    ("KIND", |o| text(o, "/kind")),
    ("NAMESPACE", |o| text(o, "/namespace")),
    ("NAME", |o| text(o, "/name")),
    ("TIER", |o| text(o, "/tier")),
    ("PRIORITY", |o| text(o, "/priority")),
    ("PODS", |o| list(o, "/pods").len().to_string()),
    ("DROPPED", |o| sum(o, "dropped")),
    ("WOULD-DROP", |o| sum(o, "would_drop")),
    ("TYPES", |o| {
        let types = [("ingress", "Ingress"), ("egress", "Egress")];
        joined(types.iter().filter(|(field, _)| o[*field].is_array()).map(|(_, name)| (*name).to_owned()))
    }),
    ("SUBJECT", |o| text(o, "/subject")),
];

fn sum(object: &Json, field: &str) -> String {
    let counts = object[field].as_object().into_iter().flat_map(|counts| counts.values());
    counts.filter_map(Json::as_u64).sum::<u64>().to_string()
}

/// The policies that are about a pod, with their rules.
pub(super) fn of_pod(client: &Client, pod: &str, out: &mut impl Write) -> Result<(), Failure> {
    let all: Vec<PolicyView> = client.get("/v1/policies")?;
    let mine =
        all.iter().filter(|policy| policy.kind == "Default" || policy.pods.iter().any(|name| name == pod));
    let mut rows = Vec::new();
    for policy in mine {
        let name = policy
            .namespace
            .as_ref()
            .map_or_else(|| policy.name.clone(), |of| format!("{of}/{}", policy.name));
        let title = format!("{} {name}", policy.kind);
        for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
            let Some(rules) = rules else { continue };
            if rules.is_empty() {
                rows.push(vec![title.clone(), direction.to_owned(), "nothing is accepted".to_owned()]);
            }
            let numbered = rules.iter().enumerate();
            rows.extend(
                numbered.map(|(at, rule)| vec![title.clone(), format!("{direction}[{at}]"), rule.clone()]),
            );
        }
    }
    if !rows.is_empty() {
        write!(out, "\nPolicies:\n{}", render(&["POLICY", "RULE", "SAYS"], &rows))?;
    }
    Ok(())
}

pub(super) fn run(client: &Client, what: &Policy) -> Result<ExitCode, Failure> {
    let Policy::Matrix(matrix) = what;
    let parts = [("namespace", &matrix.namespace), ("ports", &matrix.port)];
    let query = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_ref()?))));
    let query: Vec<String> = query.collect();
    let view: MatrixView = client.get(&format!("/v1/policies/matrix?{}", query.join("&")))?;
    let shown = match matrix.output {
        Drawing::Json => format!("{}\n", serde_json::to_string_pretty(&view)?),
        Drawing::Table => table(&view),
        Drawing::Svg => svg(&view),
    };
    io::stdout().write_all(shown.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(view: &MatrixView) -> String {
    let mut header = vec!["FROM \\ TO"];
    header.extend(view.pods.iter().map(String::as_str));
    let rows: Vec<Vec<String>> = view
        .pods
        .iter()
        .zip(&view.reach)
        .map(|(pod, reach)| [std::slice::from_ref(pod), reach].concat())
        .collect();
    render(&header, &rows)
}

/// Sides of a field, and room for names, in the picture's units.
const FIELD: usize = 22;
const MARGIN: usize = 240;

/// A field for each pair of pods: green where every port can be reached, amber where some can, red where none can. Its title
/// says which.
fn svg(view: &MatrixView) -> String {
    let size = MARGIN + FIELD * view.pods.len() + FIELD;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{size}\" height=\"{size}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Who can reach whom: rows open connections, columns are asked</title>\n"
    );
    let mut counts: HashMap<(&str, &str), (usize, usize)> = HashMap::new();
    for cell in &view.cells {
        let (all, allowed) = counts.entry((&cell.from, &cell.to)).or_default();
        *all += 1;
        *allowed += usize::from(cell.allowed);
    }
    let place = |at: usize| MARGIN + FIELD * at;
    for (at, pod) in view.pods.iter().enumerate() {
        let (name, middle) = (markup(pod), place(at) + FIELD * 2 / 3);
        // Writing into a text does not fail.
        let _ = writeln!(out, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>", MARGIN - 6);
        let (x, y) = (middle, MARGIN - 6);
        let _ = writeln!(out, "<text transform=\"translate({x} {y}) rotate(-90)\">{name}</text>");
    }
    for (row, (from, reach)) in view.pods.iter().zip(&view.reach).enumerate() {
        for (column, (to, ports)) in view.pods.iter().zip(reach).enumerate() {
            let (all, allowed) = counts.get(&(from.as_str(), to.as_str())).copied().unwrap_or_default();
            let color = match allowed {
                0 => "#d73a49",
                some if some == all => "#2da44e",
                _ => "#e3b341",
            };
            let (x, y, side) = (place(column), place(row), FIELD - 2);
            let title = format!("{} to {}: {}", markup(from), markup(to), markup(ports));
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" fill=\"{color}\"><title>{title}</title></rect>"
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::policies::CellView;

    fn view() -> MatrixView {
        let cell = |from: &str, to: &str, allowed| CellView {
            from: from.to_owned(),
            to: to.to_owned(),
            port: "TCP/80".to_owned(),
            family: "IPv4".to_owned(),
            allowed,
            why: String::new(),
        };
        MatrixView {
            pods: vec!["a/x".to_owned(), "b/y".to_owned()],
            reach: vec![
                vec!["TCP/80".to_owned(), "-".to_owned()],
                vec!["TCP/80".to_owned(), "TCP/80".to_owned()],
            ],
            cells: vec![
                cell("a/x", "a/x", true),
                cell("a/x", "b/y", false),
                cell("b/y", "a/x", true),
                cell("b/y", "b/y", true),
            ],
        }
    }

    #[test]
    fn a_matrix_is_a_table_and_a_picture() {
        assert_eq!(
            table(&view()),
            "FROM \\ TO  a/x     b/y\na/x        TCP/80  -\nb/y        TCP/80  TCP/80\n"
        );
        let picture = svg(&view());
        assert_eq!(picture.matches("<rect").count(), 4);
        assert_eq!(picture.matches("#d73a49").count(), 1);
        assert!(picture.contains("<title>a/x to b/y: -</title>") && picture.ends_with("</svg>\n"));
        assert_eq!(markup("a<b&c>"), "a&lt;b&amp;c&gt;");
    }
}
