//! The table: a line for each target.

use std::fmt::Write as _;

/// The median of several rounds, and their range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// The target of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// For comparison only.
    None,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) database: &'static str,
    /// Jackfield's figure, with its unit.
    pub(crate) jackfield: String,
    /// The baseline's figure, with its unit; empty if the target is an absolute number.
    pub(crate) baseline: String,
    /// The figure that is compared with the target.
    pub(crate) figure: Spread,
    pub(crate) target: Target,
    /// The unit of figure and target; empty for ratios.
    pub(crate) unit: &'static str,
}

// === impl Spread ===

impl Spread {
    /// # Panics
    /// Panics if there are no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Spread { median, least: values[0], most: values[values.len() - 1] }
    }

    /// The ratios of pairs.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Self {
        Self::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// The median of several values.
pub(crate) fn median(values: &[f64]) -> f64 {
    Spread::of(values.to_vec()).median
}

// === impl Line ===

impl Line {
    fn verdict(&self) -> &'static str {
        let met = match self.target {
            Target::AtLeast(target) => self.figure.median >= target,
            Target::AtMost(target) => self.figure.median <= target,
            Target::None => return "",
        };
        if met { "met" } else { "SHORT" }
    }

    fn cells(&self) -> [String; 7] {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        let target = match self.target {
            Target::AtLeast(target) => format!(">= {target}{unit}"),
            Target::AtMost(target) => format!("<= {target}{unit}"),
            Target::None => String::new(),
        };
        let Spread { median, least, most } = self.figure;
        let figure = format!("{}{unit} ({}–{})", short(median), short(least), short(most));
        [
            self.name.clone(),
            self.database.to_owned(),
            self.jackfield.clone(),
            self.baseline.clone(),
            figure,
            target,
            self.verdict().to_owned(),
        ]
    }
}

/// The table as Markdown, which is also readable as plain text.
pub(crate) fn render(lines: &[Line]) -> String {
    let head = ["", "database", "Jackfield", "baseline", "ratio or figure (least–most)", "target", "verdict"]
        .map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(lines.iter().map(Line::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if at == 0 {
            for width in widths {
                let _ = write!(text, "|{:-<width$}", "", width = width + 2);
            }
            text.push_str("|\n");
        }
    }
    text
}

/// A number with a reasonable number of digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_met_when_the_median_of_its_rounds_is() {
        let line = |ours: &[f64], target| Line {
            name: "line".to_owned(),
            database: "SQLite",
            jackfield: String::new(),
            baseline: String::new(),
            figure: Spread::of_ratios(ours, &[10.0, 10.0, 10.0]),
            target,
            unit: "",
        };
        assert_eq!(line(&[9.0, 1.0, 8.0], Target::AtLeast(0.8)).verdict(), "met");
        assert_eq!(line(&[9.0, 1.0, 7.0], Target::AtLeast(0.8)).verdict(), "SHORT");
        assert_eq!(line(&[13.0, 15.0, 90.0], Target::AtMost(1.5)).verdict(), "met");
        assert_eq!(line(&[13.0, 16.0, 90.0], Target::AtMost(1.5)).verdict(), "SHORT");
        assert_eq!(line(&[1.0, 1.0, 1.0], Target::None).verdict(), "");
        assert!(render(&[line(&[9.0, 1.0, 8.0], Target::AtLeast(0.8))]).contains("| 0.80 (0.10–0.90)"));
    }
}
