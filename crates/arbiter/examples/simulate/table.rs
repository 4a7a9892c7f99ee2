//! Results as a table for people, or as one JSON object a row.

pub(crate) enum Cell {
    Text(String),
    Number { value: f64, digits: usize },
}

pub(crate) fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

pub(crate) fn number(value: f64, digits: usize) -> Cell {
    Cell::Number { value, digits }
}

/// A part of one, as a percentage.
pub(crate) fn percent(part: f64) -> Cell {
    number(part * 100.0, 1)
}

pub(crate) struct Table {
    title: &'static str,
    columns: &'static [&'static str],
    json: bool,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(title: &'static str, columns: &'static [&'static str], json: bool) -> Self {
        Self {
            title,
            columns,
            json,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(self) {
        if self.json {
            self.print_json();
        } else {
            self.print_text();
        }
    }

    fn print_json(&self) {
        for row in &self.rows {
            let fields = self.columns.iter().zip(row).map(|(column, cell)| {
                let name = column.replace(' ', "_");
                match cell {
                    Cell::Text(text) => format!("\"{name}\": \"{text}\""),
                    Cell::Number { value, digits } => format!("\"{name}\": {value:.digits$}"),
                }
            });
            let fields: Vec<String> = fields.collect();
            println!("{{\"table\": \"{}\", {}}}", self.title, fields.join(", "));
        }
    }

    fn print_text(&self) {
        let shown = |cell: &Cell| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Number { value, digits } => format!("{value:.digits$}"),
        };
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(shown).collect())
            .collect();
        let width = |index: usize| {
            let cells = rows.iter().map(|row| row[index].chars().count());
            cells.chain([self.columns[index].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let mut padded = Vec::new();
            for (index, cell) in cells.into_iter().enumerate() {
                let width = widths[index];
                let is_text = matches!(self.rows.first().map(|row| &row[index]), Some(Cell::Text(_)));
                padded.push(if is_text {
                    format!("{cell:width$}")
                } else {
                    format!("{cell:>width$}")
                });
            }
            println!("| {} |", padded.join(" | "));
        };
        println!("\n{}\n", self.title);
        line(self.columns.to_vec());
        let dashes: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        line(dashes.iter().map(String::as_str).collect());
        for row in &rows {
            line(row.iter().map(String::as_str).collect());
        }
    }
}
