//! UTF-8 that arrives in pieces, for a console that takes whole characters only.

/// Makes text of bytes that come in pieces, which may end within a character.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Utf8 {
    /// The text so far. What is no UTF-8 becomes U+FFFD; the beginning of a character waits for its rest.
    pub(super) fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let (mut text, mut rest) = (String::with_capacity(all.len()), all.as_slice());
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(length) = error.error_len() else {
                self.held = after.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = after.get(length..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole_however_they_are_cut() {
        let text = "aé€😀中文\r\n\x1b[0mz";
        for size in 1..=text.len() {
            let mut utf8 = Utf8::default();
            let shown: String = text.as_bytes().chunks(size).map(|piece| utf8.text(piece)).collect();
            assert_eq!(shown, text, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_as_such_and_ends_nothing() {
        let bytes: Vec<u8> = (0..=255).chain(*b"the end").collect();
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut utf8 = Utf8::default();
            let shown: String = bytes.chunks(size).map(|piece| utf8.text(piece)).collect();
            assert_eq!(shown, String::from_utf8_lossy(&bytes), "pieces of {size}");
        }
        // A character that never ends holds back no other.
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.text(b"a\xe4\xb8"), "a");
        assert_eq!(utf8.text(b"b"), "\u{fffd}b");
    }
}
