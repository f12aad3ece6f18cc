//! The text that spans point into, and the way from a byte offset to line and column.

/// A named text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    name: String,
    text: String,
    /// Offset of the first byte of each line; never empty.
    line_starts: Vec<usize>,
}

/// A place for people, both numbers from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The line.
    pub line: usize,
    /// The column, in characters, whatever their width.
    pub column: usize,
}

impl SourceFile {
    /// Returns `text` under the name it is shown by, usually a path as the user wrote it.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, line_starts }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the place of a byte offset. An offset inside a character means its first byte, one behind the text the
    /// end of the text.
    pub fn location(&self, offset: usize) -> Location {
        let offset = floor_char_boundary(&self.text, offset);
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self.line_starts[line - 1];
        Location { line, column: self.text[start..offset].chars().count() + 1 }
    }

    /// Returns a line by number from 1, without its line break; `None` behind the last one.
    pub fn line(&self, number: usize) -> Option<&str> {
        let (start, end) = self.line_range(number)?;
        Some(&self.text[start..end])
    }

    /// Returns the bytes of a line from 1, without its line break.
    pub(super) fn line_range(&self, number: usize) -> Option<(usize, usize)> {
        let start = *self.line_starts.get(number.checked_sub(1)?)?;
        let end = self.line_starts.get(number).map_or(self.text.len(), |next| next - 1);
        let kept = self.text[start..end].trim_end_matches('\r').len();
        Some((start, start + kept))
    }
}

/// The nearest character boundary at or before `offset`, at most the length of `text`.
pub(super) fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}
