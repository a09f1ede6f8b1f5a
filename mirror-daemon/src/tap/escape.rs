//! Makes bytes of the network harmless to a terminal: control characters (C0, DEL, C1), and the format
//! characters that turn text around or hide it, are written out; so are bytes that are no UTF-8.

use serde_json::ser::Formatter;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// Bytes that are shown escaped: `\n`, `\x1b`, `\u{202e}`, `\\`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    is_word: bool,
    max_bytes: usize,
}

impl<'a> Escaped<'a> {
    /// A word: white space is escaped too, so that it stays one column. At most `max_bytes` of it are shown.
    #[must_use]
    pub const fn word(text: &'a str, max_bytes: usize) -> Self {
        Self { bytes: text.as_bytes(), is_word: true, max_bytes }
    }

    /// The rest of a line: spaces stay. At most `max_bytes` of it are shown.
    #[must_use]
    pub const fn text(bytes: &'a [u8], max_bytes: usize) -> Self {
        Self { bytes, is_word: false, max_bytes }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.bytes.get(..self.max_bytes).unwrap_or(self.bytes);
        for piece in shown.utf8_chunks() {
            for letter in piece.valid().chars() {
                match letter {
                    '\\' => f.write_str("\\\\")?,
                    ' ' if !self.is_word => f.write_char(' ')?,
                    letter if is_harmful(letter) || letter.is_whitespace() => write_escape(f, letter)?,
                    letter => f.write_char(letter)?,
                }
            }
            for byte in piece.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        match self.bytes.len().saturating_sub(shown.len()) {
            0 => Ok(()),
            hidden => write!(f, "\\...({hidden} more bytes)"),
        }
    }
}

fn write_escape(f: &mut fmt::Formatter<'_>, letter: char) -> fmt::Result {
    match letter {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        ' '..='\u{7f}' | '\0'..='\u{1f}' => write!(f, "\\x{:02x}", u32::from(letter)),
        letter => write!(f, "\\u{{{:x}}}", u32::from(letter)),
    }
}

/// True for characters that act on a terminal, or make text look like other text.
const fn is_harmful(letter: char) -> bool {
    matches!(letter,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' // C0, DEL, C1
        | '\u{ad}' | '\u{61c}' | '\u{180e}' // soft hyphen, Arabic letter mark, Mongolian vowel separator
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' // widthless, bidirectional
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}') // BOM, annotations, tags
}

/// JSON on one line, in which harmful characters beyond those that JSON itself escapes are escaped as well.
#[derive(Clone, Copy, Debug)]
pub struct SafeJson;

impl Formatter for SafeJson {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(start) = rest.find(is_harmful) {
            let (harmless, from) = rest.split_at(start);
            writer.write_all(harmless.as_bytes())?;
            let mut letters = from.chars();
            let mut units = [0; 2];
            for unit in letters.next().map_or(&[][..], |letter| letter.encode_utf16(&mut units)) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_name_what_was_there() {
        let shown = |text| Escaped::word(text, 64).to_string();
        assert_eq!(shown("/a\u{1b}[2J\r\n\t b"), "/a\\x1b[2J\\r\\n\\t\\x20b");
        assert_eq!(shown("\u{9b}31m\u{202e}gpj.exe\\"), "\\u{9b}31m\\u{202e}gpj.exe\\\\");
        assert_eq!(shown("/gr\u{fc}n"), "/gr\u{fc}n", "letters of other scripts stay");
        assert_eq!(Escaped::text(b"a b\xffc", 64).to_string(), "a b\\xffc");
    }

    #[test]
    fn long_values_are_cut_with_a_count() {
        assert_eq!(Escaped::word("abcdef", 6).to_string(), "abcdef");
        assert_eq!(Escaped::word("abcdef", 5).to_string(), "abcde\\...(1 more bytes)");
        assert_eq!(Escaped::word("ab\u{fc}", 3).to_string(), "ab\\xc3\\...(1 more bytes)");
    }

    proptest! {
        #[test]
        fn no_harmful_character_gets_through(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            let shown = Escaped::text(&bytes, 150).to_string() + &Escaped::word(&text, 150).to_string();
            prop_assert!(!shown.chars().any(is_harmful), "{shown:?}");
        }

        #[test]
        fn json_reads_back_the_same_and_has_no_harmful_character(text in any::<String>()) {
            let mut out = Vec::new();
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, SafeJson);
            serde::Serialize::serialize(&text, &mut serializer).unwrap();
            let shown = String::from_utf8(out).unwrap();
            prop_assert!(!shown.chars().any(is_harmful), "{shown:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
