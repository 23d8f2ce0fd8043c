//! Text from outside, made safe to print.
//!
//! The gateway, the agent, AWS, proxies and local clients choose text that ends in a status line, an error or the log.
//! Printed as it came, it could move the cursor, set a title, or forge a line in this program's name.

use std::fmt::{self, Write};

/// Returns `text` on one line, with control characters as `\x1b`, of at most [`MAX_CHARACTERS`].
pub(crate) fn one_line(text: &str) -> String {
    let mut line = OneLine::new(String::with_capacity(text.len()));
    // A string takes everything.
    let _ = line.write_str(text);
    line.out
}

/// Returns `text` on one line, with control characters as `\x1b`, of any length.
pub(crate) fn escaped(text: &str) -> String {
    let mut line = OneLine { out: String::with_capacity(text.len()), room: usize::MAX };
    let _ = line.write_str(text);
    line.out
}

/// Returns the beginning of a bad value, for the message about it.
pub(crate) fn beginning(value: &str) -> String {
    value.chars().take(MAX_BEGINNING).collect()
}

/// Returns whether `text` can be printed as it is: [`one_line`] would at most shorten it.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.contains(is_unsafe)
}

/// Writer of one line to `W`, under the rules of [`one_line`].
#[derive(Debug)]
pub(crate) struct OneLine<W> {
    out: W,
    /// Characters of the text that still fit.
    room: usize,
}

impl<W: Write> OneLine<W> {
    pub(crate) fn new(out: W) -> OneLine<W> {
        OneLine { out, room: MAX_CHARACTERS }
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match self.room {
                0 => return Ok(()),
                1 => self.out.write_str(CUT)?,
                _ if !is_unsafe(char) => self.out.write_char(char)?,
                _ if u32::from(char) < 0x100 => write!(self.out, "\\x{:02x}", u32::from(char))?,
                _ => write!(self.out, "\\u{{{:x}}}", u32::from(char))?,
            }
            self.room -= 1;
        }
        Ok(())
    }
}

/// Returns `true` for characters that control a terminal (C0, DEL, C1), end a line, or change the direction in which text
/// around them is shown.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Length of a line in characters of the text, before they are escaped.
const MAX_CHARACTERS: usize = 500;
/// Characters of a bad value that a message about it repeats.
const MAX_BEGINNING: usize = 80;
/// End of a line that is longer, in place of its last character.
const CUT: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(one_line("\x1b]0;title\x07\x1b[2J"), r"\x1b]0;title\x07\x1b[2J");
        assert_eq!(one_line("a\r\nsession-manager-plugin: b\tc"), r"a\x0d\x0asession-manager-plugin: b\x09c");
        // One byte of Latin-1, two of UTF-8: the sequence introducer that needs no ESC.
        assert_eq!(one_line("\u{9b}2J\u{7f}\0"), r"\x9b2J\x7f\x00");
        assert!(!is_printable("a\nb") && !is_printable("\u{202e}") && is_printable(r"C:\x1b größer 漢字"));
        assert_eq!(one_line("abc\u{202e}fed\u{2028}"), r"abc\u{202e}fed\u{2028}");
        // Marks, without an end of their own.
        assert_eq!(one_line("a\u{200f}b\u{200e}c\u{61c}d"), r"a\u{200f}b\u{200e}c\u{61c}d");
        assert_eq!(one_line(r"C:\x1b größer 漢字"), r"C:\x1b größer 漢字");
    }

    #[test]
    fn a_line_has_five_hundred_characters() {
        let full = "ä".repeat(MAX_CHARACTERS - 1);
        assert_eq!(one_line(&full), full);
        assert_eq!(one_line(&"ä".repeat(10 * MAX_CHARACTERS)), format!("{full}..."));
        assert_eq!(one_line(&"\x1b".repeat(10 * MAX_CHARACTERS)).len(), 4 * (MAX_CHARACTERS - 1) + 3);
        assert_eq!(escaped(&"\n".repeat(1000)).len(), 4000);
    }

    #[test]
    fn pieces_count_together() {
        let mut line = OneLine::new(String::new());
        for _ in 0..MAX_CHARACTERS {
            writeln!(line, "{}", 1).unwrap();
        }
        assert!(line.out.ends_with(CUT) && line.out.len() < 4 * MAX_CHARACTERS, "{}", line.out);
    }
}
