//! A manual page in man(7), built from sections, paragraphs and items.

use roff::{Inline, Roff, bold, roman};

/// A page. In its texts, what is between backticks is bold.
pub(super) struct Page {
    roff: Roff,
}

impl Page {
    /// Begins with a comment and the title line. Without a date, so that the same source makes the same page.
    pub(super) fn new(comment: &str, name: &str, source: &str) -> Page {
        let mut roff = Roff::new();
        let (title, source) = (escaped(&name.to_uppercase()), escaped(source));
        roff.control(format!("\\\" {comment}"), [])
            .control("TH", [title.as_str(), "1", "\"\"", source.as_str(), "User Commands"]);
        Page { roff }
    }

    /// A section's heading.
    pub(super) fn section(&mut self, title: &str) -> &mut Page {
        self.roff.control("SH", [title]);
        self
    }

    /// A line of text. Lines in a row make one paragraph.
    pub(super) fn text(&mut self, text: &str) -> &mut Page {
        self.roff.text(inlines(text));
        self
    }

    /// Begins a new paragraph.
    pub(super) fn paragraph(&mut self, text: &str) -> &mut Page {
        self.roff.control("PP", []);
        self.text(text)
    }

    /// Begins a new line.
    pub(super) fn line(&mut self, text: &str) -> &mut Page {
        self.roff.control("br", []);
        self.text(text)
    }

    /// A name in bold, with its meaning below it.
    pub(super) fn item(&mut self, name: &str, meaning: &str) -> &mut Page {
        self.roff.control("TP", []).text([bold(name)]);
        self.text(meaning)
    }

    /// Another paragraph of the meaning.
    pub(super) fn more(&mut self, text: &str) -> &mut Page {
        self.roff.control("IP", []);
        self.text(text)
    }

    /// Lines as they are, in the meaning.
    pub(super) fn example(&mut self, lines: &str) -> &mut Page {
        self.roff.control("IP", []).control("nf", []);
        for line in lines.lines() {
            self.roff.text([roman(line)]);
        }
        self.roff.control("fi", []);
        self
    }

    /// Returns the page's source, in ASCII, which every troff reads.
    pub(super) fn render(&self) -> String {
        // The library escapes hyphens, backslashes and apostrophes; these two have other forms, too, and would be
        // printed as accents.
        self.roff.render().replace('~', "\\(ti").replace('^', "\\(ha").replace('…', "...")
    }
}

fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

/// An argument of a control line, which the library does not escape.
fn escaped(text: &str) -> String {
    text.replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_taken_for_a_request() {
        let mut page = Page::new("made", "a-b", "a-b 1");
        page.section("NAME").text(".x-y ~ `'b` \\ ^ …").item(".", "'").example("[[match]]\n.a");
        let source = page.render();
        let lines: Vec<&str> = source.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                ".\\\" made",
                ".TH A\\-B 1 \"\" \"a\\-b 1\" \"User Commands\"",
                ".SH NAME",
                "\\&.x\\-y \\(ti \\fB\\*(Aqb\\fR \\\\ \\(ha ...",
                ".TP",
                "\\fB.\\fR",
                "\\*(Aq",
                ".IP",
                ".nf",
                "[[match]]",
                "\\&.a",
                ".fi",
            ]
        );
        assert!(source.is_ascii());
    }
}
