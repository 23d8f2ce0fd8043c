//! Lines in another form, for tools that read stderr.

use std::io::{self, Write};

use bytes::Bytes;

/// Passes on each line, without its end, through a function that makes a line of it again.
pub(super) struct LineForm<W> {
    out: W,
    form: fn(&str) -> Bytes,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl<W: Write> LineForm<W> {
    pub(super) fn new(out: W, form: fn(&str) -> Bytes) -> LineForm<W> {
        LineForm { out, form, begun: Vec::new() }
    }
}

impl<W: Write> Write for LineForm<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if let Some(line) = self.begun.strip_suffix(b"\n") {
                let line = (self.form)(&String::from_utf8_lossy(line));
                self.begun.clear();
                self.out.write_all(&line)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_however_they_are_cut() {
        let mut lines = LineForm::new(Vec::new(), |line| format!("<{line}>\n").into());
        for piece in ["one\ntw", "o", "\n\nthree"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(String::from_utf8(lines.out).unwrap(), "<one>\n<two>\n<>\n");
    }
}
