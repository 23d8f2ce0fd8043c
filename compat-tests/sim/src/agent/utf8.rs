//! Splitting of a program's output at character boundaries (agent source, `processStdoutData`).

/// Keeps incomplete characters back until the rest of them comes.
///
/// Like the agent it holds back anything invalid among the last three bytes, forever if nothing follows, and it
/// sends only the first byte of a literal U+FFFD, which it takes for a decoding error.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    held: Vec<u8>,
}

impl Boundaries {
    /// Returns the part of the held and the new bytes to send now.
    pub(super) fn whole(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let mut whole = Vec::with_capacity(all.len());
        let mut rest = &all[..];
        loop {
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(text) => (text, &b""[..]),
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    (std::str::from_utf8(valid).unwrap_or_default(), invalid)
                }
            };
            let error_at = valid.find(char::REPLACEMENT_CHARACTER).unwrap_or(valid.len());
            whole.extend_from_slice(&rest[..error_at]);
            let skip = if error_at < valid.len() { char::REPLACEMENT_CHARACTER.len_utf8() } else { 1 };
            rest = &rest[error_at..];
            debug_assert!(rest.ends_with(invalid));
            if rest.len() < MAX_CHARACTER {
                self.held = rest.to_vec();
                return whole;
            }
            whole.push(rest[0]);
            rest = &rest[skip..];
        }
    }
}

/// The longest UTF-8 encoding of a character in bytes.
const MAX_CHARACTER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_cut() {
        let mut boundaries = Boundaries::default();
        let text = "aé€😀z".repeat(50);
        for size in 1..9 {
            let mut sent = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                let whole = boundaries.whole(piece);
                assert!(std::str::from_utf8(&whole).is_ok());
                sent.extend(whole);
            }
            assert_eq!(sent, text.as_bytes());
        }
    }

    #[test]
    fn invalid_bytes_pass_once_three_more_are_there() {
        let mut boundaries = Boundaries::default();
        assert_eq!(boundaries.whole(b"a\xff"), b"a");
        assert_eq!(boundaries.whole(b"bc"), b"");
        assert_eq!(boundaries.whole(b"d"), b"\xffbcd");
        assert_eq!(boundaries.whole("x\u{fffd}yz".as_bytes()), b"x\xefyz");
        assert_eq!(boundaries.whole(b""), b"");
    }
}
