//! Structured fields (RFC 9651): items, lists and dictionaries.
//!
//! Reading is strict, as section 4.2 asks: a field with one fault is no field, and
//! the caller gets `None` for the whole of it. Lines of one field are joined first.

use alloc::string::String;
use alloc::vec::Vec;

use super::Fields;

/// The most members of a list or dictionary, and parameters of an item, that are
/// read; RFC 9651 asks for at least 1024 and 256.
const MAX_MEMBERS: usize = 1024;

/// One value (section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bare {
    /// -999,999,999,999,999 to 999,999,999,999,999.
    Integer(i64),
    /// In thousandths: at most 12 digits before the point and 3 after.
    Decimal(i64),
    /// Printable ASCII.
    String(String),
    /// A word.
    Token(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// True or false.
    Boolean(bool),
    /// Seconds since 1970 (section 3.3.7).
    Date(i64),
    /// Unicode text (section 3.3.8).
    Display(String),
}

impl Bare {
    /// The text of a string or a token.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Token(text) => Some(text),
            _ => None,
        }
    }
}

/// Parameters, in order (section 3.1.2).
pub type Parameters = Vec<(String, Bare)>;

/// A value with parameters (section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub bare: Bare,
    /// What is said about it.
    pub parameters: Parameters,
}

/// A member of a list or dictionary (section 3.1, 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// One item.
    Item(Item),
    /// Items in parentheses, and the parameters of them together (section 3.1.1).
    Inner(Vec<Item>, Parameters),
}

impl Member {
    /// The item, if it is one.
    #[must_use]
    pub fn as_item(&self) -> Option<&Item> {
        match self {
            Self::Item(item) => Some(item),
            Self::Inner(..) => None,
        }
    }
}

/// The list in all lines of a field; `None` if it is malformed. Without the field
/// the list is empty.
#[must_use]
pub fn list(fields: Fields<'_>, name: &str) -> Option<Vec<Member>> {
    whole(&joined(fields, name), Parser::list)
}

/// The dictionary in all lines of a field, in the order of the keys' first places;
/// `None` if it is malformed. Without the field it is empty.
#[must_use]
pub fn dictionary(fields: Fields<'_>, name: &str) -> Option<Vec<(String, Member)>> {
    whole(&joined(fields, name), Parser::dictionary)
}

/// The item in a field; `None` if there is none or it is malformed.
#[must_use]
pub fn item(fields: Fields<'_>, name: &str) -> Option<Item> {
    whole(&joined(fields, name), Parser::item)
}

/// A text as an sf-string with its quotes; `None` if it has a character that a string
/// cannot have.
#[must_use]
pub fn string(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => return None,
        }
    }
    out.push('"');
    Some(out)
}

fn joined(fields: Fields<'_>, name: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for (n, line) in fields.all(name).enumerate() {
        if 0 < n {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(line);
    }
    text
}

/// What `read` finds, if that is all there is but for spaces (section 4.2).
fn whole<'a, T>(text: &'a [u8], read: impl FnOnce(&mut Parser<'a>) -> Option<T>) -> Option<T> {
    let mut parser = Parser { rest: text };
    parser.spaces();
    let found = read(&mut parser)?;
    parser.spaces();
    parser.rest.is_empty().then_some(found)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        if here {
            self.next();
        }
        here
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !fits(*byte)).unwrap_or(self.rest.len());
        let (head, rest) = self.rest.split_at(end);
        self.rest = rest;
        head
    }

    fn spaces(&mut self) {
        self.take_while(|byte| byte == b' ');
    }

    /// The comma and what may stand around it; `None` if something else follows.
    /// `Some(false)` at the end.
    fn separator(&mut self) -> Option<bool> {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
        if self.rest.is_empty() {
            return Some(false);
        }
        if !self.eat(b',') {
            return None;
        }
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
        // A comma at the end is a fault.
        (!self.rest.is_empty()).then_some(true)
    }

    // Section 4.2.1.
    fn list(&mut self) -> Option<Vec<Member>> {
        let mut members = Vec::new();
        if self.rest.is_empty() {
            return Some(members);
        }
        loop {
            if members.len() == MAX_MEMBERS {
                return None;
            }
            members.push(self.member()?);
            if !self.separator()? {
                return Some(members);
            }
        }
    }

    // Section 4.2.2.
    fn dictionary(&mut self) -> Option<Vec<(String, Member)>> {
        let mut members: Vec<(String, Member)> = Vec::new();
        if self.rest.is_empty() {
            return Some(members);
        }
        loop {
            let full = members.len() == MAX_MEMBERS;
            let key = self.key()?;
            let member = if self.eat(b'=') {
                self.member()?
            } else {
                let bare = Bare::Boolean(true);
                Member::Item(Item { bare, parameters: self.parameters()? })
            };
            // A key said again takes the value of the last, in the place of the first.
            match members.iter_mut().find(|(other, _)| *other == key) {
                Some(slot) => slot.1 = member,
                None if full => return None,
                None => members.push((key, member)),
            }
            if !self.separator()? {
                return Some(members);
            }
        }
    }

    fn member(&mut self) -> Option<Member> {
        if self.peek() != Some(b'(') {
            return self.item().map(Member::Item);
        }
        self.next();
        let mut items = Vec::new();
        loop {
            self.spaces();
            if self.eat(b')') {
                return Some(Member::Inner(items, self.parameters()?));
            }
            if items.len() == MAX_MEMBERS {
                return None;
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    // Section 4.2.3.
    fn item(&mut self) -> Option<Item> {
        Some(Item { bare: self.bare()?, parameters: self.parameters()? })
    }

    // Section 4.2.3.2.
    fn parameters(&mut self) -> Option<Parameters> {
        let mut parameters: Parameters = Vec::new();
        while self.eat(b';') {
            self.spaces();
            let full = parameters.len() == MAX_MEMBERS;
            let key = self.key()?;
            let bare = if self.eat(b'=') { self.bare()? } else { Bare::Boolean(true) };
            match parameters.iter_mut().find(|(other, _)| *other == key) {
                Some(slot) => slot.1 = bare,
                None if full => return None,
                None => parameters.push((key, bare)),
            }
        }
        Some(parameters)
    }

    // Section 4.2.3.3.
    fn key(&mut self) -> Option<String> {
        if !matches!(self.peek()?, b'a'..=b'z' | b'*') {
            return None;
        }
        text(self.take_while(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        }))
    }

    // Section 4.2.3.1.
    fn bare(&mut self) -> Option<Bare> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Bare::String),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let token = self.take_while(|byte| {
                    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
                });
                text(token).map(Bare::Token)
            }
            b':' => self.bytes().map(Bare::Bytes),
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Bare::Boolean(false)),
                    b'1' => Some(Bare::Boolean(true)),
                    _ => None,
                }
            }
            b'@' => {
                self.next();
                match self.number()? {
                    Bare::Integer(seconds) => Some(Bare::Date(seconds)),
                    _ => None,
                }
            }
            b'%' => self.display().map(Bare::Display),
            _ => None,
        }
    }

    // Section 4.2.4.
    fn number(&mut self) -> Option<Bare> {
        let sign = if self.eat(b'-') { -1 } else { 1 };
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        let integer = |digits: &[u8]| {
            digits.iter().fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'))
        };
        if self.peek() != Some(b'.') {
            let fits = (1..=15).contains(&whole.len());
            return fits.then(|| Bare::Integer(sign * integer(whole)));
        }
        self.next();
        let part = self.take_while(|byte| byte.is_ascii_digit());
        if !(1..=12).contains(&whole.len()) || !(1..=3).contains(&part.len()) {
            return None;
        }
        let scale = [100, 10, 1].get(part.len() - 1).copied()?;
        Some(Bare::Decimal(sign * (integer(whole) * 1000 + integer(part) * scale)))
    }

    // Section 4.2.5.
    fn string(&mut self) -> Option<String> {
        self.next();
        let mut out = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(out),
                b'\\' => match self.next()? {
                    byte @ (b'"' | b'\\') => out.push(char::from(byte)),
                    _ => return None,
                },
                byte @ b' '..=b'~' => out.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    // Section 4.2.7, with the padding that it allows to be missing.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        self.next();
        let text = self.take_while(|byte| byte != b':');
        if !self.eat(b':') {
            return None;
        }
        let digits = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        let (digits, padding) = text.split_at(digits);
        let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
        for digit in digits {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(value);
            count += 6;
            if 8 <= count {
                count -= 8;
                out.push((bits >> count & 0xff) as u8);
            }
        }
        // One digit alone is no byte; more padding than a group lacks is no padding.
        let lacking = (4 - digits.len() % 4) % 4;
        (lacking != 3 && padding.len() <= lacking).then_some(out)
    }

    // Section 4.2.10.
    fn display(&mut self) -> Option<String> {
        self.next();
        if !self.eat(b'"') {
            return None;
        }
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => return String::from_utf8(bytes).ok(),
                b'%' => {
                    let mut byte = 0;
                    for _ in 0..2 {
                        let digit = match self.next()? {
                            digit @ b'0'..=b'9' => digit - b'0',
                            digit @ b'a'..=b'f' => digit - b'a' + 10,
                            _ => return None,
                        };
                        byte = byte << 4 | digit;
                    }
                    bytes.push(byte);
                }
                byte @ b' '..=b'~' => bytes.push(byte),
                _ => return None,
            }
        }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item_of(text: &str) -> Option<Bare> {
        whole(text.as_bytes(), Parser::item).map(|item| item.bare)
    }

    #[test]
    fn rfc_9651_3_3_items() {
        for (text, bare) in [
            ("42", Bare::Integer(42)),
            ("-999999999999999", Bare::Integer(-999_999_999_999_999)),
            ("0042", Bare::Integer(42)),
            ("4.5", Bare::Decimal(4500)),
            ("-0.001", Bare::Decimal(-1)),
            ("999999999999.999", Bare::Decimal(999_999_999_999_999)),
            ("\"hello \\\"world\\\"\"", Bare::String("hello \"world\"".into())),
            ("foo123/456", Bare::Token("foo123/456".into())),
            ("*a:b", Bare::Token("*a:b".into())),
            (":cHJldGVuZA==:", Bare::Bytes(b"pretend".to_vec())),
            (":cHJldGVuZA:", Bare::Bytes(b"pretend".to_vec())),
            ("::", Bare::Bytes(Vec::new())),
            ("?1", Bare::Boolean(true)),
            ("@1659578233", Bare::Date(1_659_578_233)),
            ("%\"f%c3%bc %22\"", Bare::Display("fü \"".into())),
        ] {
            assert_eq!(item_of(text), Some(bare), "{text}");
        }
    }

    #[test]
    fn rfc_9651_4_2_one_fault_and_there_is_no_field() {
        for text in [
            "",
            "1000000000000000",
            "1.",
            ".5",
            "1.2345",
            "1234567890123.1",
            "-",
            "--1",
            "\"a",
            "\"a\\b\"",
            "\"\u{e9}\"",
            "?2",
            "?",
            "@1.5",
            ":a:",
            ":a=b:",
            ":=:",
            ":ab",
            "%\"%C3\"",
            "%\"%c3\"",
            "%\"a",
            "a b",
            "a;",
            "a;B=1",
            "a;=1",
            "a,",
            "(a",
            "\u{e9}",
        ] {
            assert_eq!(item_of(text), None, "{text}");
        }
        for text in ["a,", ",a", "a,,b", "a b", "(a b", "(a\tb)", "(a)b", "(a(b))", "a;b c"] {
            assert_eq!(whole(text.as_bytes(), Parser::list), None, "{text}");
        }
        for text in ["A=1", "a=", "a=1,", "a==1", "a =1", "1=a", "a=1 b=2", "a=\"1"] {
            assert_eq!(whole(text.as_bytes(), Parser::dictionary), None, "{text}");
        }
    }

    #[test]
    fn rfc_9651_3_1_and_3_2_lists_and_dictionaries() {
        let list = whole(b"a;x;y=2 \t,\t(b c;z);w, 3", Parser::list).unwrap();
        assert_eq!(list.len(), 3);
        let Member::Inner(items, parameters) = &list[1] else { panic!("{list:?}") };
        assert_eq!((items.len(), parameters.len()), (2, 1));
        assert_eq!(list[0].as_item().unwrap().parameters.len(), 2);

        let fields: [(&[u8], &[u8]); 2] = [(b"x", b"max-age=60, a;q=1"), (b"x", b"max-age=5,b=?0")];
        let dictionary = dictionary(Fields::new(&fields), "x").unwrap();
        let keys: Vec<_> = dictionary.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["max-age", "a", "b"]);
        assert_eq!(dictionary[0].1.as_item().unwrap().bare, Bare::Integer(5));
        assert_eq!(super::dictionary(Fields::default(), "x"), Some(Vec::new()));
    }

    #[test]
    fn strings_are_written_as_they_are_read() {
        assert_eq!(string("a\"b\\").as_deref(), Some("\"a\\\"b\\\\\""));
        assert_eq!(string("é"), None);
        assert_eq!(string("a\r\nb"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in prop::collection::vec(prop_oneof![
            any::<u8>(), Just(b'"'), Just(b';'), Just(b'('), Just(b':'), Just(b'%'), Just(b'1'), Just(b'a'), Just(b'=')
        ], 0..60)) {
            let _ = whole(&text, Parser::list);
            let _ = whole(&text, Parser::dictionary);
            let _ = whole(&text, Parser::item);
        }

        #[test]
        fn any_printable_text_is_a_string(text in "[ -~]{0,40}") {
            let written = string(&text).unwrap();
            prop_assert_eq!(item_of(&written), Some(Bare::String(text)));
        }
    }
}
