//! Places in a text.

/// A place in a text, counted from 1. Columns are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPosition {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl TextPosition {
    /// Converts a position in a value to one in the text that has the value at `origin`.
    pub(super) fn within(self, origin: Self) -> Self {
        let column = if self.line == 1 { origin.column + self.column - 1 } else { self.column };
        Self { line: origin.line + self.line - 1, column }
    }
}
