//! Which statements are the same query with other values.
//!
//! Three levels, from the strictest on:
//!
//! | level | merges | for |
//! |---|---|---|
//! | [`Level::Exact`] | nothing | prepared statements, batching |
//! | [`Level::Shape`] | other literals, other numbers of them in `IN` and `VALUES`, other spacing, case and comments | statistics, N+1 |
//! | [`Level::Structure`] | also `= x`, `IN (…)` and `= ANY(…)`, casts of constants, names that a select list gives to its columns | comparing designs, never batching |
//!
//! Merging too little costs a row in a table; merging too much lies. So whatever
//! might change what a statement means stays: hints, quoted names, `NULL` outside of
//! `VALUES`, the ordinals of `ORDER BY 2`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::lexer::{Dialect, Kind, Lexer, Token};
use crate::hash::HashSeed;

/// How much is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The text, byte for byte.
    Exact,
    /// Literals and parameters are `?`, lists of them are one.
    Shape,
    /// As `Shape`, and spellings of one structure are one.
    Structure,
}

/// The 64-bit name of a query. The same on every machine and in every run.
///
/// Not a secret and not proof against a collision made on purpose: statistics may
/// be keyed by it, results must not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a text as it stands; for a shape that is at hand already.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        // A constant seed: fingerprints of two processes must be comparable.
        Self(HashSeed::from_bytes(*b"edgeweir query 1").hash64(text.as_bytes()))
    }
}

impl fmt::Display for Fingerprint {
    /// 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The fingerprint of `sql` at `level`.
///
/// Linear in the text (`Structure`: in the shape's tokens).
#[must_use]
pub fn fingerprint(sql: &str, dialect: Dialect, level: Level) -> Fingerprint {
    match level {
        Level::Exact => Fingerprint::of_text(sql),
        Level::Shape | Level::Structure => Fingerprint::of_text(&normal_form(sql, dialect, level)),
    }
}

/// The text that the fingerprint at `level` is the hash of.
///
/// Never longer than twice `sql` and a few bytes.
#[must_use]
pub fn normal_form(sql: &str, dialect: Dialect, level: Level) -> String {
    match level {
        Level::Exact => String::from(sql),
        Level::Shape => shape(sql, dialect),
        Level::Structure => structure(&shape(sql, dialect), dialect),
    }
}

/// The shape of `sql`: see [`Level::Shape`].
#[must_use]
pub fn shape(sql: &str, dialect: Dialect) -> String {
    let mut writer = Writer::new(sql.len());
    let mut lexer = Lexer::new(sql, dialect);
    loop {
        let binary = lexer.after_operand();
        let Some(token) = lexer.next() else { break };
        writer.token(token.kind, token.text(sql), binary);
    }
    writer.finish()
}

/// What the last piece was, as far as spacing depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    /// A word that no space separates from a `(`: perhaps a function.
    Callable,
    /// `(`, `.`, `::`, `[`: no space follows.
    Tight,
    Other,
}

/// Rows of `VALUES (…), (…)` or `IN ((…), (…))`: equal ones become one.
#[derive(Clone, Copy)]
struct Rows {
    /// The depth of parentheses outside of the rows.
    depth: u32,
    /// Where the last row that was kept is.
    kept: Option<(usize, usize)>,
    /// Where the row that is being written starts.
    row: Option<usize>,
    /// Where the output ended before the comma in front of that row.
    comma: Option<usize>,
    /// `VALUES` rather than `IN`: `NULL` and `DEFAULT` are values there.
    values: bool,
}

struct Writer {
    out: String,
    last: Last,
    depth: u32,
    /// The last word, in lower case, if the last token was one of those that matter here.
    word: Seen,
    /// In front of a unary sign, that was the end of the output.
    sign: Option<(usize, Last)>,
    /// An `IN (` list of literals only, so far: where its text starts, and its depth.
    list: Option<(usize, u32)>,
    rows: Option<Rows>,
    /// Inside `ORDER BY` or `GROUP BY` of this depth: whole numbers there are columns.
    ordinals: Option<u32>,
    ordinal_next: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    In,
    Values,
    OrderOrGroup,
}

impl Writer {
    fn new(len: usize) -> Self {
        Self {
            out: String::with_capacity(len.min(4096)),
            last: Last::Nothing,
            depth: 0,
            word: Seen::Nothing,
            sign: None,
            list: None,
            rows: None,
            ordinals: None,
            ordinal_next: false,
        }
    }

    /// Writes a piece, with a space in front if `spaced` and the last piece allows it.
    fn piece(&mut self, text: &str, spaced: bool, last: Last) {
        if spaced && !matches!(self.last, Last::Nothing | Last::Tight) {
            self.out.push(' ');
        }
        self.out.push_str(text);
        self.last = last;
    }

    fn literal(&mut self, kind: Kind, text: &str) {
        if kind == Kind::Number {
            if let Some((end, last)) = self.sign.take() {
                self.out.truncate(end);
                self.last = last;
            }
            if self.ordinal_next {
                return self.piece(text, true, Last::Other);
            }
        }
        self.piece("?", true, Last::Other);
    }

    fn token(&mut self, kind: Kind, text: &str, binary: bool) {
        let word = core::mem::replace(&mut self.word, Seen::Nothing);
        // Rows end with the first thing between them that is neither a row nor a comma.
        if let Some(rows) = self.rows
            && rows.depth == self.depth
            && !matches!(kind, Kind::Open | Kind::Comma | Kind::Comment)
        {
            self.rows = None;
        }
        let sign = kind == Kind::Operator && !binary && matches!(text, "-" | "+");
        let literal = matches!(kind, Kind::String | Kind::Number | Kind::Placeholder);
        if !literal && !sign && !matches!(kind, Kind::Comma | Kind::Close | Kind::Comment) {
            self.list = None;
        }
        match kind {
            Kind::Comment => {
                self.word = word;
                return;
            }
            Kind::String | Kind::Number | Kind::Placeholder => self.literal(kind, text),
            Kind::Word => self.word(text, word),
            Kind::Name => self.piece(text, true, Last::Callable),
            Kind::Hint => self.piece(text, true, Last::Other),
            Kind::Open => return self.open(word),
            Kind::Close => self.close(),
            Kind::Comma => {
                if let Some(rows) = &mut self.rows
                    && rows.depth == self.depth
                {
                    rows.comma = Some(self.out.len());
                }
                self.piece(",", false, Last::Other);
                self.ordinal_next = self.ordinals == Some(self.depth);
                self.sign = None;
                return;
            }
            Kind::Semicolon => {
                self.piece(";", false, Last::Other);
                (self.depth, self.ordinals) = (0, None);
            }
            Kind::Dot => self.piece(".", false, Last::Tight),
            Kind::Operator => {
                if sign {
                    let before = (self.out.len(), self.last);
                    self.piece(text, true, Last::Other);
                    self.sign = Some(before);
                    return;
                }
                match text {
                    "::" | "[" => self.piece(text, false, Last::Tight),
                    "]" => self.piece(text, false, Last::Callable),
                    // A placeholder is `?` too: the operator is written as JDBC does.
                    "?" | "??" => self.piece("??", true, Last::Other),
                    _ => self.piece(text, true, Last::Other),
                }
            }
        }
        self.sign = None;
        self.ordinal_next &= self.word == Seen::OrderOrGroup;
    }

    fn word(&mut self, text: &str, before: Seen) {
        let is = |known: &str| text.eq_ignore_ascii_case(known);
        let in_values = self.rows.is_some_and(|rows| rows.values && rows.row.is_some());
        if in_values && (is("null") || is("default") || is("true") || is("false")) {
            return self.piece("?", true, Last::Other);
        }
        let keyword = super::lexer::is_before_operand(text);
        let start = self.out.len();
        self.piece(text, true, if keyword { Last::Other } else { Last::Callable });
        if let Some(written) = self.out.get_mut(start..) {
            written.make_ascii_lowercase();
        }
        if is("in") {
            self.word = Seen::In;
        } else if is("values") || is("value") {
            self.word = Seen::Values;
        } else if is("order") || is("group") {
            self.word = Seen::OrderOrGroup;
        } else if is("by") && before == Seen::OrderOrGroup {
            self.ordinals = Some(self.depth);
            self.ordinal_next = true;
            self.word = Seen::OrderOrGroup;
        } else if self.ordinals == Some(self.depth)
            && [
                "limit",
                "offset",
                "having",
                "for",
                "fetch",
                "union",
                "except",
                "intersect",
                "rows",
                "range",
                "select",
            ]
            .iter()
            .any(|clause| is(clause))
        {
            self.ordinals = None;
        }
    }

    fn open(&mut self, word: Seen) {
        self.piece("(", self.last != Last::Callable, Last::Tight);
        let start = self.out.len();
        let row = start - 1;
        match (&mut self.rows, word) {
            // One set of rows at a time: what is nested in a row is part of its text.
            (Some(rows), _) if rows.depth == self.depth && rows.row.is_none() => {
                rows.row = Some(row);
            }
            (None, Seen::Values) => {
                self.rows = Some(Rows {
                    depth: self.depth,
                    kept: None,
                    row: Some(row),
                    comma: None,
                    values: true,
                });
            }
            (None, Seen::In) => {
                self.rows = Some(Rows {
                    depth: self.depth + 1,
                    kept: None,
                    row: None,
                    comma: None,
                    values: false,
                });
            }
            _ => {}
        }
        self.depth = self.depth.saturating_add(1);
        self.list = (word == Seen::In).then_some((start, self.depth));
        (self.sign, self.ordinal_next) = (None, false);
    }

    fn close(&mut self) {
        if let Some((start, depth)) = self.list.take()
            && depth == self.depth
            && start < self.out.len()
        {
            self.out.truncate(start);
            self.out.push_str("...");
        }
        self.piece(")", false, Last::Other);
        if self.ordinals == Some(self.depth) {
            self.ordinals = None;
        }
        self.depth = self.depth.saturating_sub(1);
        let Some(rows) = &mut self.rows else { return };
        if self.depth < rows.depth {
            self.rows = None;
        } else if self.depth == rows.depth
            && let Some(start) = rows.row.take()
        {
            let row = self.out.get(start..);
            let kept = rows.kept.and_then(|(start, end)| self.out.get(start..end));
            match rows.comma.take() {
                Some(comma) if row.is_some() && row == kept => self.out.truncate(comma),
                _ => rows.kept = Some((start, self.out.len())),
            }
        }
    }

    fn finish(mut self) -> String {
        let end = self.out.trim_end_matches([';', ' ']).len();
        self.out.truncate(end);
        self.out
    }
}

/// One piece of a shape.
type Piece<'a> = (Kind, &'a str);

/// [`Level::Structure`] from a shape.
fn structure(shape: &str, dialect: Dialect) -> String {
    // In a shape `?` is always a value: the operator is written `??`.
    let kind = |token: Token| match token.text(shape) {
        "?" => Kind::Placeholder,
        _ => token.kind,
    };
    let pieces: Vec<Piece<'_>> =
        Lexer::new(shape, dialect).map(|token| (kind(token), token.text(shape))).collect();
    let mut writer = Writer::new(shape.len());
    let mut rest = pieces.as_slice();
    // The parentheses that are open, and whether their innermost SELECT is in its list.
    let mut lists: Vec<bool> = Vec::new();
    let mut in_list = false;
    let mut before: &str = "";
    while let Some((&(kind, text), tail)) = rest.split_first() {
        let constant = matches!(kind, Kind::Placeholder)
            || (kind == Kind::Word
                && matches!(text, "true" | "false")
                && !matches!(before, "is" | "not" | "set"));
        let used = match kind {
            _ if constant => {
                writer.piece("?", true, Last::Other);
                1 + cast_len(tail)
            }
            // IN, = ANY and = of constants are one question to the planner.
            Kind::Word if text == "in" && is_constant_list(tail) => {
                writer.piece("= ?", true, Last::Other);
                list_len(tail) + 1
            }
            Kind::Word
                if text == "not"
                    && matches!(tail.first(), Some((_, "in")))
                    && is_constant_list(tail.get(1..).unwrap_or(&[])) =>
            {
                writer.piece("<> ?", true, Last::Other);
                list_len(tail.get(1..).unwrap_or(&[])) + 2
            }
            Kind::Operator if text == "=" && any_len(tail) > 0 => {
                writer.piece("= ?", true, Last::Other);
                1 + any_len(tail)
            }
            // DATE '2020-01-01' and INTERVAL '1 day' are constants with a cast.
            Kind::Word
                if matches!(text, "interval" | "date" | "timestamp" | "timestamptz" | "time")
                    && matches!(tail.first(), Some((Kind::Placeholder, _))) =>
            {
                writer.piece("?", true, Last::Other);
                2 + cast_len(tail.get(1..).unwrap_or(&[]))
            }
            Kind::Word
                if text == "as"
                    && in_list
                    && matches!(tail.first(), Some((Kind::Word | Kind::Name, _))) =>
            {
                2
            }
            _ => {
                match text {
                    "select" => in_list = true,
                    "from" | "into" | "values" | "where" | "union" | "with" => in_list = false,
                    _ => {}
                }
                match kind {
                    Kind::Open => {
                        lists.push(in_list);
                        in_list = false;
                        writer.piece(text, writer.last != Last::Callable, Last::Tight);
                    }
                    Kind::Close => {
                        in_list = lists.pop().unwrap_or(false);
                        writer.piece(text, false, Last::Other);
                    }
                    Kind::Comma | Kind::Semicolon => writer.piece(text, false, Last::Other),
                    Kind::Dot => writer.piece(text, false, Last::Tight),
                    Kind::Word if super::lexer::is_before_operand(text) => {
                        writer.piece(text, true, Last::Other);
                    }
                    Kind::Word | Kind::Name => writer.piece(text, true, Last::Callable),
                    Kind::Operator if matches!(text, "::" | "[") => {
                        writer.piece(text, false, Last::Tight);
                    }
                    _ => writer.piece(text, true, Last::Other),
                }
                1
            }
        };
        before = text;
        rest = rest.get(used..).unwrap_or(&[]);
    }
    writer.finish()
}

/// `(...)`, as the shape writes a list of literals: four tokens or fewer, by dialect.
fn is_constant_list(pieces: &[Piece<'_>]) -> bool {
    list_len(pieces) > 0
}

fn list_len(pieces: &[Piece<'_>]) -> usize {
    let dots = |piece: &&Piece<'_>| matches!(piece, (Kind::Dot | Kind::Operator, text) if text.bytes().all(|b| b == b'.'));
    let (Some((Kind::Open, _)), Some(rest)) = (pieces.first(), pieces.get(1..)) else { return 0 };
    let inner = rest.iter().take(3).take_while(dots).count();
    let inner = if inner == 0 {
        usize::from(matches!(rest.first(), Some((Kind::Placeholder, _))))
    } else {
        inner
    };
    let cast = if inner == 1 { cast_len(rest.get(1..).unwrap_or(&[])) } else { 0 };
    match rest.get(inner + cast) {
        Some((Kind::Close, _)) if inner > 0 => inner + cast + 2,
        _ => 0,
    }
}

/// `any (?)` with or without a cast inside.
fn any_len(pieces: &[Piece<'_>]) -> usize {
    match pieces.first() {
        Some((Kind::Word, "any")) => match list_len(pieces.get(1..).unwrap_or(&[])) {
            0 => 0,
            len => len + 1,
        },
        _ => 0,
    }
}

/// `::name`, `::name(?)`, `::name[]`, as often as they stand there.
fn cast_len(pieces: &[Piece<'_>]) -> usize {
    let mut len = 0;
    while let (Some((Kind::Operator, "::")), Some((Kind::Word | Kind::Name, _))) =
        (pieces.get(len), pieces.get(len + 1))
    {
        len += 2;
        if let (Some((Kind::Open, _)), Some((Kind::Placeholder, _)), Some((Kind::Close, _))) =
            (pieces.get(len), pieces.get(len + 1), pieces.get(len + 2))
        {
            len += 3;
        }
        while let (Some((_, "[")), Some((_, "]"))) = (pieces.get(len), pieces.get(len + 1)) {
            len += 2;
        }
    }
    len
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
