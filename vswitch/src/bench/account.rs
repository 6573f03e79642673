//! What was measured, for people and for programs.

use serde::Serialize;

use crate::control::table;

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Account {
    /// Of this program.
    pub version: &'static str,
    /// How many there are for all that runs.
    pub processors: usize,
    /// What a frame costs the switch, if that was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<Cost>,
    /// What there is between two pods, if that was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tap: Vec<Figure>,
    /// Why there is nothing of TAPs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_tap: Option<String>,
    /// What was lost or otherwise went wrong, in sentences.
    pub problems: Vec<String>,
}

/// What a frame costs the switch, by the fastest tenth of the turns.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Cost {
    /// What is done with it.
    pub name: &'static str,
    /// How long that takes.
    pub nanoseconds: f64,
    /// How many that makes on one core.
    pub million_frames_per_second: f64,
}

/// What goes from pod to pod our way and the kernel's, medians of some measurements in turns.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What goes.
    pub name: &'static str,
    /// Of what `ours` and `kernel` count.
    pub unit: &'static str,
    /// By TAPs and our switch.
    pub ours: Option<f64>,
    /// By veths and the kernel's bridge.
    pub kernel: Option<f64>,
    /// Ours beside the kernel's, taken in each turn.
    pub ratio: Option<f64>,
    /// What part of what was sent has come, where some may be lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered: Option<[f64; 2]>,
}

impl Account {
    /// As text.
    pub fn text(&self) -> String {
        let processors = if self.processors == 1 { "processor" } else { "processors" };
        let mut text = format!(
            "vswitch {}, {} {processors}. Whatever else runs here shows in the figures, least in the ratios.\n",
            self.version, self.processors
        );
        if !self.memory.is_empty() {
            let rows: Vec<Vec<String>> = self.memory.iter().map(Cost::row).collect();
            text.push_str("\nThe switch alone, in memory and on one thread, frames of 64 octets:\n\n");
            text.push_str(&table::render(&["NAME", "NS FOR A FRAME", "MILLION FRAMES/S"], &rows));
        }
        if !self.tap.is_empty() {
            let rows: Vec<Vec<String>> = self.tap.iter().map(Figure::row).collect();
            text.push_str(
                "\nFrom pod to pod over TAPs, in turns with veths and a bridge of the kernel, which has no services in between:\n\n",
            );
            text.push_str(&table::render(&["NAME", "UNIT", "OURS", "KERNEL", "RATIO"], &rows));
            text.push_str(
                "\nEach is the median of all turns; so is the ratio, which is taken in each turn.\n",
            );
            for figure in &self.tap {
                if let Some([ours, kernel]) = figure.delivered {
                    text.push_str(&format!(
                        "{}: {:.0} % of what was sent arrived, {:.0} % by the kernel.\n",
                        figure.name,
                        100.0 * ours,
                        100.0 * kernel
                    ));
                }
            }
        }
        if let Some(reason) = &self.no_tap {
            text.push_str(&format!("\nNothing was measured over TAPs: {reason}.\n"));
        }
        for problem in &self.problems {
            text.push_str(&format!("\nFAILED: {problem}"));
        }
        if !self.problems.is_empty() {
            text.push('\n');
        }
        text
    }
}

impl Cost {
    fn row(&self) -> Vec<String> {
        vec![
            self.name.to_owned(),
            format!("{:.1}", self.nanoseconds),
            format!("{:.2}", self.million_frames_per_second),
        ]
    }
}

impl Figure {
    fn row(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or_else(|| "failed".to_owned(), |v| format!("{v:.2}"));
        vec![
            self.name.to_owned(),
            self.unit.to_owned(),
            number(self.ours),
            number(self.kernel),
            number(self.ratio),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_measured_and_what_failed() {
        let figure = Figure {
            name: "TCP, 1 stream",
            unit: "Gbit/s",
            ours: Some(12.345),
            kernel: Some(24.69),
            ratio: Some(0.5),
            delivered: Some([0.5, 1.0]),
        };
        let mut account = Account {
            version: "1.2.3",
            processors: 1,
            memory: vec![Cost { name: "bridged", nanoseconds: 50.0, million_frames_per_second: 20.0 }],
            tap: vec![figure.clone(), Figure { ours: None, ratio: None, delivered: None, ..figure }],
            no_tap: None,
            problems: vec!["a frame was lost".to_owned()],
        };
        let text = account.text();
        for part in [
            "vswitch 1.2.3, 1 processor.",
            "bridged  50.0            20.00",
            "TCP, 1 stream  Gbit/s  12.35   24.69   0.50",
            "TCP, 1 stream  Gbit/s  failed  24.69   failed",
            "TCP, 1 stream: 50 % of what was sent arrived, 100 % by the kernel.",
            "FAILED: a frame was lost\n",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        account = Account { no_tap: Some("no device".to_owned()), ..Account::default() };
        assert!(account.text().contains("Nothing was measured over TAPs: no device.\n"));
        assert!(!account.text().contains("OURS"));
    }
}
