//! Output of a remote command that carries the command's exit status, for sessions in which the agent sends none.
//!
//! ```text
//! anything  MARK<  output of the command  MARK>STATUS;  anything
//! ```
//!
//! Text before the first mark and behind the last is the shell's, and is dropped. Without a first mark the output begins at
//! once. Only the bytes that may be the beginning of a mark are held back.

use bytes::Bytes;

/// A command whose status is read from its output.
#[derive(Debug)]
pub(crate) struct Script {
    /// Typed into the shell as soon as it is there; `None` for a command that the document starts.
    pub(super) line: Option<Bytes>,
    output: MarkedOutput,
    powershell: Search,
}

impl Script {
    /// A command that a shell runs, whose output is between two marks.
    pub(crate) fn typed(line: String, mark: &str) -> Script {
        let output = MarkedOutput::new(Some(format!("{mark}<")), format!("{mark}>"));
        Script { line: Some(line.into()), output, powershell: Search::new(POWERSHELL_ERROR) }
    }

    /// A command that may print its status behind its output.
    pub(crate) fn untyped(mark: &str) -> Script {
        let output = MarkedOutput::new(None, format!("{mark}>"));
        Script { line: None, output, powershell: Search::new(POWERSHELL_ERROR) }
    }

    /// Takes a piece of stdout. Returns the bytes of the command that are complete.
    pub(super) fn handle_output(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.powershell.handle(bytes);
        self.output.handle(bytes)
    }

    /// Takes a piece of stderr.
    pub(super) fn handle_error(&mut self, bytes: &[u8]) {
        self.powershell.handle(bytes);
    }

    /// Returns the bytes that were held back, at the end of the output.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.output.finish()
    }

    /// Returns the command's status, once it has come.
    pub(super) fn status(&self) -> Option<u8> {
        self.output.status()
    }

    /// Returns whether PowerShell has printed an error, instead of a POSIX shell.
    pub(super) fn has_powershell_error(&self) -> bool {
        self.powershell.is_found
    }
}

/// Output with marks in it.
#[derive(Debug)]
struct MarkedOutput {
    /// The first mark, until it has come.
    begin: Option<Vec<u8>>,
    end: Vec<u8>,
    held: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Output,
    Status,
    Over(u8),
}

impl MarkedOutput {
    fn new(begin: Option<String>, end: String) -> MarkedOutput {
        MarkedOutput {
            begin: begin.map(String::into_bytes),
            end: end.into_bytes(),
            held: Vec::new(),
            stage: Stage::Output,
        }
    }

    /// Returns the bytes of the command that are complete.
    fn handle(&mut self, bytes: &[u8]) -> Vec<u8> {
        if matches!(self.stage, Stage::Over(_)) {
            return Vec::new();
        }
        self.held.extend_from_slice(bytes);
        if let Some(begin) = &self.begin {
            let Some(at) = find(&self.held, begin) else {
                let kept = self.held.len().min(begin.len() - 1);
                self.held.drain(..self.held.len() - kept);
                return Vec::new();
            };
            self.held.drain(..at + begin.len());
            self.begin = None;
        }
        let mut printed = Vec::new();
        if self.stage == Stage::Output {
            if let Some(at) = find(&self.held, &self.end) {
                printed.extend(self.held.drain(..at));
                self.held.drain(..self.end.len());
                self.stage = Stage::Status;
            } else {
                let kept = beginning(&self.held, &self.end);
                printed.extend(self.held.drain(..self.held.len() - kept));
            }
        }
        if self.stage == Stage::Status
            && let Some(at) = self.held.iter().position(|byte| *byte == b';')
        {
            let status = std::str::from_utf8(&self.held[..at]).ok().and_then(|text| text.parse().ok());
            self.stage = Stage::Over(status.unwrap_or(u8::MAX));
            self.held.clear();
        }
        printed
    }

    /// Returns the bytes that were held back, at the end of the output.
    fn finish(&mut self) -> Vec<u8> {
        let is_output = self.begin.is_none() && self.stage == Stage::Output;
        let held = std::mem::take(&mut self.held);
        if is_output { held } else { Vec::new() }
    }

    /// Returns the command's status, once it has come.
    fn status(&self) -> Option<u8> {
        match self.stage {
            Stage::Over(status) => Some(status),
            _ => None,
        }
    }
}

/// A search for a text in a stream, across its pieces.
#[derive(Debug)]
struct Search {
    text: &'static [u8],
    /// The end of the stream so far, in which the text may begin.
    tail: Vec<u8>,
    is_found: bool,
}

impl Search {
    fn new(text: &'static str) -> Search {
        Search { text: text.as_bytes(), tail: Vec::new(), is_found: false }
    }

    fn handle(&mut self, bytes: &[u8]) {
        if self.is_found {
            return;
        }
        self.tail.extend_from_slice(bytes);
        self.is_found = find(&self.tail, self.text).is_some();
        let kept = self.tail.len().min(self.text.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark)
}

/// Returns the length of the longest end of `text` with which a mark begins.
fn beginning(text: &[u8], mark: &[u8]) -> usize {
    let longest = text.len().min(mark.len() - 1);
    (1..=longest).rev().find(|length| text.ends_with(&mark[..*length])).unwrap_or_default()
}

/// The line of an error record that Windows PowerShell does not translate.
const POWERSHELL_ERROR: &str = "FullyQualifiedErrorId";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn play(mut output: MarkedOutput, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<u8>) {
        let mut printed: Vec<u8> = bytes.chunks(piece).flat_map(|part| output.handle(part)).collect();
        printed.extend(output.finish());
        (printed, output.status())
    }

    fn between() -> MarkedOutput {
        MarkedOutput::new(Some("M<".to_owned()), "M>".to_owned())
    }

    fn behind() -> MarkedOutput {
        MarkedOutput::new(None, "M>".to_owned())
    }

    #[test]
    fn output_and_status() {
        for piece in [1, 2, 100] {
            let whole = b"$ exec sh M <\r\nM<out M< MM>3;logout";
            assert_eq!(play(between(), whole, piece), (b"out M< M".to_vec(), Some(3)));
            assert_eq!(play(between(), b"M<M>127;", piece), (Vec::new(), Some(127)));
            assert_eq!(play(behind(), b"out\nM>0;", piece), (b"out\n".to_vec(), Some(0)));
        }
    }

    #[test]
    fn output_without_a_status_is_whole() {
        for piece in [1, 100] {
            assert_eq!(play(behind(), b"out MM", piece), (b"out MM".to_vec(), None));
            assert_eq!(play(between(), b"M<cut M", piece), (b"cut M".to_vec(), None));
            assert_eq!(play(between(), b"sh: not found M", piece), (Vec::new(), None));
            assert_eq!(play(behind(), b"x M>4", piece), (b"x ".to_vec(), None), "cut in the status");
        }
        assert_eq!(play(behind(), b"M>300;", 9).1, Some(255), "not a status");
    }

    #[test]
    fn an_error_of_powershell_is_found_across_pieces() {
        let error = b"sh : The term 'sh' is not recognized ...\r\n + FullyQualifiedErrorId : CommandNotFoundException";
        for piece in [1, 7, 500] {
            let mut script = Script::untyped("M");
            error.chunks(piece).for_each(|part| script.handle_error(part));
            assert!(script.has_powershell_error());
            let mut script = Script::untyped("M");
            let printed: Vec<u8> = error.chunks(piece).flat_map(|part| script.handle_output(part)).collect();
            assert!(script.has_powershell_error() && error.starts_with(&printed));
        }
        let mut script = Script::untyped("M");
        script.handle_error(b"Fully");
        script.handle_error(b" QualifiedErrorId");
        assert!(!script.has_powershell_error());
    }

    proptest! {
        #[test]
        fn any_output(output in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize) {
            let mark = "0123456789abcdef";
            let all = [b"prompt ", mark.as_bytes(), b"<", &output, mark.as_bytes(), b">7;\r\n$ "].concat();
            let marked = MarkedOutput::new(Some(format!("{mark}<")), format!("{mark}>"));
            prop_assert_eq!(play(marked, &all, piece), (output, Some(7)));
        }
    }
}
