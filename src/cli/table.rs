//! Tables for people.

use std::fmt::Write;

/// Columns as wide as their widest cell; the first to the left, figures to the right.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}"); // a String takes all
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
