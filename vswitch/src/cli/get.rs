//! `get` and `describe`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use saphyr::{Mapping, Scalar, Yaml, YamlEmitter};
use serde_json::Value as Json;

use super::capture::escaped;
use super::columns::{Listing, listing, text};
use super::{Describe, Failure, Format, Get, Table, policy, services, wrong};
use crate::control::api::ConnectionsView;
use crate::control::client::Client;
use crate::control::table::render;

/// How often `-w` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn get(client: &Client, get: &Get) -> Result<ExitCode, Failure> {
    let listing = listing(get.kind);
    let (path, wanted) = wanted(get, &listing)?;
    let found = fetch(client, &path, &listing, &wanted)?;
    if let (true, Some(name)) = (found.is_empty(), &wanted.name) {
        return Err(missing(client, &listing, name)?.into());
    }
    let mut out = io::stdout().lock();
    out.write_all(shown(&listing, get, &found, true)?.as_bytes())?;
    if !get.watch {
        return Ok(ExitCode::SUCCESS);
    }
    let mut seen: BTreeMap<String, Json> = keyed(&listing, found).collect();
    loop {
        out.flush()?;
        std::thread::sleep(WATCH_INTERVAL);
        let now: BTreeMap<String, Json> = keyed(&listing, fetch(client, &path, &listing, &wanted)?).collect();
        let same = |one: &Json, other: &Json| lasting(&listing, one) == lasting(&listing, other);
        let changed = now.iter().filter(|(key, value)| !seen.get(*key).is_some_and(|seen| same(seen, value)));
        let changed: Vec<Json> = changed.map(|(_, value)| value.clone()).collect();
        if !changed.is_empty() {
            out.write_all(shown(&listing, get, &changed, false)?.as_bytes())?;
        }
        seen = now;
    }
}

/// What of a list is wanted.
struct Wanted {
    namespace: Option<String>,
    name: Option<String>,
}

impl Wanted {
    fn new(name: Option<&str>, namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) }
    }

    /// A name means what it says in full, or what it says within the namespace that is wanted, if one is.
    fn holds(&self, listing: &Listing, item: &Json) -> bool {
        let (name, namespace) = ((listing.name)(item), (listing.namespace)(item));
        let full = namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
        let unset = namespace.as_deref().is_none_or(|n| n == "default");
        let named = self.name.as_ref().is_none_or(|wanted| {
            *wanted == full
                || (*wanted == name && (unset || self.namespace.is_some()))
                || full == format!("default/{wanted}")
        });
        let inside = self.namespace.as_ref().is_none_or(|wanted| namespace.as_ref() == Some(wanted));
        named && inside
    }
}

/// Where to ask, and what of the answer is wanted.
fn wanted(get: &Get, listing: &Listing) -> Result<(String, Wanted), Failure> {
    let filters = get.connections.given();
    if get.kind == Table::Connections {
        let node = get.name.iter().map(|node| ("node", node.clone()));
        let query: Vec<String> = filters
            .into_iter()
            .chain(node)
            .map(|(name, value)| format!("{name}={}", escaped(&value)))
            .collect();
        return Ok((format!("{}?{}", listing.path, query.join("&")), Wanted::new(None, None)));
    }
    if let Some((name, _)) = filters.first() {
        return Err(wrong(&format!("--{name} is for connections; this kind has a NAME and -n")));
    }
    let wanted = Wanted::new(get.name.as_deref(), get.namespace.as_deref());
    Ok((listing.path.to_owned(), wanted))
}

/// A thing without what changes while nothing happens.
fn lasting(listing: &Listing, item: &Json) -> Json {
    let mut item = item.clone();
    if let (Some(field), Some(fields)) = (listing.volatile, item.as_object_mut()) {
        fields.remove(field);
    }
    item
}

fn fetch(client: &Client, path: &str, listing: &Listing, wanted: &Wanted) -> Result<Vec<Json>, Failure> {
    let answer: Json = client.get(path)?;
    let mut items: Vec<Json> = if answer.is_array() {
        serde_json::from_value(answer)?
    } else {
        let view: ConnectionsView = serde_json::from_value(answer)?;
        if view.omitted > 0 {
            writeln!(
                io::stderr(),
                "{} more are not shown; say which are wanted: --source, --destination, --protocol, --state",
                view.omitted
            )?;
        }
        view.connections.iter().map(serde_json::to_value).collect::<Result<_, _>>()?
    };
    items.retain(|item| wanted.holds(listing, item));
    Ok(items)
}

/// Things with what tells each from the others. Of several rows with one name each has its number.
fn keyed<'a>(listing: &'a Listing, items: Vec<Json>) -> impl Iterator<Item = (String, Json)> + 'a {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    items.into_iter().map(move |item| {
        let name = format!("{}/{}", (listing.namespace)(&item).unwrap_or_default(), (listing.name)(&item));
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        (format!("{name}#{count}"), item)
    })
}

fn missing(client: &Client, listing: &Listing, name: &str) -> Result<String, Failure> {
    let all = fetch(client, listing.path, listing, &Wanted::new(None, None))?;
    let names: Vec<String> = all.iter().map(listing.name).collect();
    let near = names
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(name, known))
        .filter(|known| strsim::damerau_levenshtein(name, known) <= 2);
    Ok(match near {
        Some(near) => format!("{name} does not exist; did you mean {near}?"),
        None => format!("{name} does not exist; there are {}", names.join(", ")),
    })
}

fn shown(listing: &Listing, get: &Get, items: &[Json], head: bool) -> Result<String, Failure> {
    let one = get.name.is_some() && get.kind != Table::Connections && items.len() == 1;
    let whole = || if one { items[0].clone() } else { Json::from(items.to_vec()) };
    Ok(match get.output.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&whole())?),
        Format::Yaml => yaml(&whole())?,
        Format::Table | Format::Wide => {
            let all = get.output.output == Format::Wide;
            let columns = &listing.columns[..if all { listing.columns.len() } else { listing.narrow }];
            let header: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
            let rows: Vec<Vec<String>> =
                items.iter().map(|item| columns.iter().map(|(_, cell)| cell(item)).collect()).collect();
            let table = render(&header, &rows);
            if head {
                table
            } else {
                table.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned())
            }
        }
    })
}

/// A value as a YAML document.
pub(super) fn yaml(value: &Json) -> Result<String, Failure> {
    let mut out = String::new();
    YamlEmitter::new(&mut out).dump(&to_yaml(value)).map_err(|error| format!("{error:?}"))?;
    out.push('\n');
    Ok(out)
}

fn to_yaml(value: &Json) -> Yaml<'static> {
    match value {
        Json::Null => Yaml::Value(Scalar::Null),
        Json::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Json::Number(number) => Yaml::Value(match number.as_i64() {
            Some(integer) => Scalar::Integer(integer),
            None => Scalar::FloatingPoint(number.as_f64().unwrap_or(f64::NAN).into()),
        }),
        Json::String(text) => Yaml::Value(Scalar::String(text.clone().into())),
        Json::Array(items) => Yaml::Sequence(items.iter().map(to_yaml).collect()),
        Json::Object(fields) => {
            let mut mapping = Mapping::new();
            for (name, value) in fields {
                mapping.insert(Yaml::Value(Scalar::String(name.clone().into())), to_yaml(value));
            }
            Yaml::Mapping(mapping)
        }
    }
}

/// The object itself, then the ports, drops and events that concern it.
pub(super) fn describe(client: &Client, what: &Describe) -> Result<ExitCode, Failure> {
    let listing = listing(what.kind);
    let wanted = Wanted::new(Some(&what.name), what.namespace.as_deref());
    let found = fetch(client, listing.path, &listing, &wanted)?;
    let Some(object) = found.first() else { return Err(missing(client, &listing, &what.name)?.into()) };
    let mut out = io::stdout().lock();
    out.write_all(yaml(object)?.as_bytes())?;
    let name = (listing.name)(object);
    let concerns: Box<dyn Fn(&Json) -> bool> = match what.kind {
        Table::Pods => {
            let full = format!("{}/{name}", (listing.namespace)(object).unwrap_or_default());
            policy::of_pod(client, &full, &mut out)?;
            Box::new(move |row| text(row, "/port") == full || text(row, "/text").contains(&full))
        }
        Table::Nodes => Box::new(move |row| text(row, "/switch") == name),
        Table::Services => {
            let full = format!("{}/{name}", (listing.namespace)(object).unwrap_or_default());
            services::describe(client, &full, &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        Table::Policies
        | Table::Namespaces
        | Table::Deployments
        | Table::Clusters
        | Table::Endpoints
        | Table::EndpointSlices
        | Table::Pools
        | Table::Advertisements
        | Table::Dns
        | Table::Places
        | Table::Ports
        | Table::Fdb
        | Table::Neighbors
        | Table::Routes
        | Table::Drops
        | Table::Connections
        | Table::Published
        | Table::Events => return Ok(ExitCode::SUCCESS),
    };
    for (title, table) in [("Ports", Table::Ports), ("Drops", Table::Drops), ("Events", Table::Events)] {
        section(client, title, table, &*concerns, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn section(
    client: &Client,
    title: &str,
    table: Table,
    concerns: &dyn Fn(&Json) -> bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let listing = listing(table);
    let all: Vec<Json> = client.get(listing.path)?;
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter(|row| concerns(row))
        .map(|row| listing.columns[..listing.narrow].iter().map(|(_, cell)| cell(row)).collect())
        .collect();
    if !rows.is_empty() {
        let header: Vec<&str> = listing.columns[..listing.narrow].iter().map(|(head, _)| *head).collect();
        write!(out, "\n{title}:\n{}", render(&header, &rows))?;
    }
    Ok(())
}
