//! SQL tokens and statements in one pass, for four dialects.
//!
//! The lexer never looks back and never starts again: whatever is opened and not
//! closed (a string, a comment, a dollar quote) reaches to the end of the text, as
//! it does for the servers. So the work is linear in the text, and the state is a
//! few integers however deep the nesting.
//!
//! What a character means differs per dialect:
//!
//! | text | PostgreSQL | MySQL | SQLite | T-SQL |
//! |---|---|---|---|---|
//! | `"x"` | name | string | name | name |
//! | `` `x` `` | – | name | name | – |
//! | `[x]` | subscript | – | name | name |
//! | `'a\'b'` | only as `E'…'` | yes | no | no |
//! | `$tag$…$tag$` | string | – | – | – |
//! | `/* /* */ */` | nests | does not | does not | nests |
//! | `# …` | operator | comment | – | part of a name |
//! | `--x` | comment | operators (needs a space) | comment | comment |
//! | `?` | JSON operator or placeholder | placeholder | placeholder | placeholder |
//! | `@x` | operator | variable | placeholder | variable |
//! | `1abc` | number, word | name | number, word | number, word |

/// The SQL language of a text: decides quoting, comments and operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL and its relatives.
    #[default]
    Postgres,
    /// MySQL and MariaDB, with `ANSI_QUOTES` and `NO_BACKSLASH_ESCAPES` off.
    MySql,
    /// SQLite.
    Sqlite,
    /// Transact-SQL (SQL Server) with `QUOTED_IDENTIFIER` on.
    TSql,
}

impl Dialect {
    /// The dialect called `name`: `postgres`, `mysql`, `sqlite` or `tsql`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "postgres" => Self::Postgres,
            "mysql" => Self::MySql,
            "sqlite" => Self::Sqlite,
            "tsql" => Self::TSql,
            _ => return None,
        })
    }

    /// Block comments nest (the SQL standard) rather than end at the first `*/`.
    const fn nests_comments(self) -> bool {
        matches!(self, Self::Postgres | Self::TSql)
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A keyword, a bare name, or a variable such as `@x`.
    Word,
    /// A quoted name, quotes included.
    Name,
    /// A string, with prefix and quotes.
    String,
    /// A number, without its sign.
    Number,
    /// A bind parameter: `$1`, `?`, `:name`.
    Placeholder,
    /// An operator, a bracket of a subscript, or a lone character of no meaning.
    Operator,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// `.` between names
    Dot,
    /// A comment that has no effect.
    Comment,
    /// A comment that has: `/*+ … */` and MySQL's `/*! … */`.
    Hint,
}

/// A token: its kind and where it is in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: usize,
    /// The byte after its last one.
    pub end: usize,
}

impl Token {
    /// The token's text within the text it was read from.
    #[must_use]
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        sql.get(self.start..self.end).unwrap_or("")
    }
}

/// Words that an operand follows, so that `-`, `?` and the like after them are not binary.
const BEFORE_OPERAND: &[&str] = &[
    "all",
    "and",
    "any",
    "as",
    "between",
    "by",
    "case",
    "distinct",
    "else",
    "escape",
    "except",
    "fetch",
    "first",
    "from",
    "having",
    "ilike",
    "in",
    "intersect",
    "interval",
    "into",
    "is",
    "like",
    "limit",
    "next",
    "not",
    "offset",
    "on",
    "or",
    "over",
    "print",
    "regexp",
    "return",
    "returning",
    "rlike",
    "select",
    "set",
    "similar",
    "some",
    "then",
    "to",
    "top",
    "union",
    "using",
    "values",
    "when",
    "where",
    "xor",
];

/// Whether `word` (any case) is one that an operand follows.
pub(super) fn is_before_operand(word: &str) -> bool {
    word.len() <= 9 && BEFORE_OPERAND.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The tokens of a text, in order, white space left out.
///
/// Linear in the text, no allocation. Every byte that is not white space belongs to
/// exactly one token.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    sql: &'a str,
    dialect: Dialect,
    pos: usize,
    /// The last token (comments aside) ended a value: what follows is binary.
    after_operand: bool,
    /// Inside that many `[`: a `:` there is a slice, not a placeholder.
    brackets: u32,
    /// A byte that ends words: the first of a MySQL delimiter such as `$$`.
    word_break: Option<u8>,
    steps: u64,
}

impl<'a> Lexer<'a> {
    /// Reads `sql` as `dialect`.
    #[must_use]
    pub const fn new(sql: &'a str, dialect: Dialect) -> Self {
        Self { sql, dialect, pos: 0, after_operand: false, brackets: 0, word_break: None, steps: 0 }
    }

    /// Bytes looked at so far. The measure of work that tests hold to be linear.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The tokens so far end with an operand, so what follows is a binary operator.
    pub(super) const fn after_operand(&self) -> bool {
        self.after_operand
    }

    /// Goes on at byte `pos`, as at the start of a statement.
    fn restart_at(&mut self, pos: usize) {
        self.pos = pos;
        self.after_operand = false;
        self.brackets = 0;
    }

    fn byte(&mut self, at: usize) -> Option<u8> {
        self.steps = self.steps.saturating_add(1);
        self.sql.as_bytes().get(at).copied()
    }

    /// The first place from `from` on where `stop` holds, or the end.
    fn find(&mut self, from: usize, stop: impl Fn(u8) -> bool) -> usize {
        let rest = self.sql.as_bytes().get(from..).unwrap_or(&[]);
        let len = rest.iter().position(|&byte| stop(byte)).unwrap_or(rest.len());
        self.steps = self.steps.saturating_add(len as u64 + 1);
        from + len
    }

    fn word_end(&mut self, from: usize) -> usize {
        let dialect = self.dialect;
        let stop = self.word_break;
        self.find(from, |byte| !is_word_byte(byte, dialect) || stop == Some(byte))
    }

    /// The end of a text in `quote`s whose first byte after the quote is `from`.
    /// A doubled quote stands for itself, and so does `\` and the next byte if `escapes`.
    fn quoted_end(&mut self, mut from: usize, quote: u8, escapes: bool) -> usize {
        loop {
            let at = self.find(from, |byte| byte == quote || (escapes && byte == b'\\'));
            match self.byte(at) {
                None => return self.sql.len(),
                Some(b'\\') if escapes => from = at.saturating_add(2).min(self.sql.len()),
                Some(_) if self.byte(at + 1) == Some(quote) => from = at + 2,
                Some(_) => return at + 1,
            }
        }
    }

    /// The end of a dollar quote that starts at `start`, if one does.
    fn dollar_end(&mut self, start: usize) -> Option<usize> {
        let tag_end = self.find(start + 1, |byte| {
            !(byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80)
        });
        if self.byte(tag_end) != Some(b'$')
            || self.byte(start + 1).is_some_and(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let tag = self.sql.as_bytes().get(start..=tag_end)?;
        let mut from = tag_end + 1;
        loop {
            let at = self.find(from, |byte| byte == b'$');
            let rest = self.sql.as_bytes().get(at..)?;
            if rest.is_empty() {
                return Some(self.sql.len());
            }
            // The tag has no `$` inside, so comparing here never goes beyond the next one.
            self.steps = self.steps.saturating_add(tag.len() as u64);
            if rest.starts_with(tag) {
                return Some(at + tag.len());
            }
            from = at + 1;
        }
    }

    /// The end of a block comment whose text begins at `from`.
    fn block_end(&mut self, mut from: usize) -> usize {
        let mut depth = 1_u32;
        loop {
            let at = self.find(from, |byte| byte == b'*' || byte == b'/');
            match (self.byte(at), self.byte(at + 1)) {
                (None, _) => return self.sql.len(),
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    from = at + 2;
                    if depth == 0 {
                        return from;
                    }
                }
                (Some(b'/'), Some(b'*')) if self.dialect.nests_comments() => {
                    depth = depth.saturating_add(1);
                    from = at + 2;
                }
                _ => from = at + 1,
            }
        }
    }

    /// The end of a number that starts at `start` with a digit or with `.` and a digit.
    fn number_end(&mut self, start: usize) -> usize {
        let digits = |byte: u8| !(byte.is_ascii_digit() || byte == b'_');
        if self.byte(start) == Some(b'0')
            && let Some(base) = self.byte(start + 1).map(|byte| byte.to_ascii_lowercase())
            && (base == b'x' || (matches!(base, b'b' | b'o') && self.dialect != Dialect::TSql))
            && self.byte(start + 2).is_some_and(|byte| byte.is_ascii_hexdigit() || byte == b'_')
        {
            return self.find(start + 2, |byte| !(byte.is_ascii_hexdigit() || byte == b'_'));
        }
        let mut end = self.find(start, digits);
        // `1..10` is a range: its dots are not the number's.
        if self.byte(end) == Some(b'.') && self.byte(end + 1) != Some(b'.') {
            end = self.find(end + 1, digits);
        }
        if matches!(self.byte(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.byte(end + 1), Some(b'+' | b'-')));
            if self.byte(end + 1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                end = self.find(end + 1 + sign, digits);
            }
        }
        end
    }

    fn operator_end(&mut self, start: usize) -> usize {
        if self.dialect == Dialect::Postgres {
            return self.postgres_operator_end(start);
        }
        const KNOWN: &[&str] = &[
            "<=>", "->>", "<<=", ">>=", "<>", "!=", ">=", "<=", ":=", "||", "&&", "->", "<<", ">>",
            "==", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "!<", "!>", "::",
        ];
        let rest = self.sql.as_bytes().get(start..).unwrap_or(&[]);
        self.steps = self.steps.saturating_add(3);
        let len = KNOWN
            .iter()
            .find(|known| rest.starts_with(known.as_bytes()))
            .map_or(1, |known| known.len());
        start + len
    }

    /// PostgreSQL manual 4.1.3: as long as it goes, but no comment starts within,
    /// and only operators with one of `~!@#%^&|`?` may end in `+` or `-`.
    ///
    /// At most 63 bytes, as there: a run of `+-+-` gives back nearly all it read.
    fn postgres_operator_end(&mut self, start: usize) -> usize {
        let rest = self.sql.as_bytes().get(start..).unwrap_or(&[]);
        let run =
            rest.iter().take(63).take_while(|byte| b"+-*/<>=~!@#%^&|`?".contains(byte)).count();
        let run = start + run;
        if run == start {
            let pair = self.sql.as_bytes().get(start..start + 2);
            return start + if matches!(pair, Some(b"::" | b":=" | b"..")) { 2 } else { 1 };
        }
        let text = self.sql.as_bytes().get(start..run).unwrap_or(&[]);
        let comment = text.windows(2).skip(1).position(|pair| pair == b"--" || pair == b"/*");
        let text = comment.and_then(|at| text.get(..=at)).unwrap_or(text);
        let free = text.iter().any(|byte| b"~!@#%^&|`?".contains(byte));
        let mut len = text.len();
        while !free && len > 1 && matches!(text.get(len - 1), Some(b'+' | b'-')) {
            len -= 1;
        }
        self.steps = self.steps.saturating_add(text.len() as u64 + 1);
        start + len
    }

    /// Reads the token at `start`; gives its kind and end.
    fn token(&mut self, start: usize, first: u8) -> (Kind, usize) {
        use Dialect::{MySql, Sqlite, TSql};
        let dialect = self.dialect;
        let second = self.byte(start + 1);
        match first {
            b'\'' => (Kind::String, self.quoted_end(start + 1, b'\'', dialect == MySql)),
            b'"' if dialect == MySql => (Kind::String, self.quoted_end(start + 1, b'"', true)),
            b'"' => (Kind::Name, self.quoted_end(start + 1, b'"', false)),
            b'`' if matches!(dialect, MySql | Sqlite) => {
                (Kind::Name, self.quoted_end(start + 1, b'`', false))
            }
            b'[' if matches!(dialect, Sqlite | TSql) => {
                // SQLite has no way to put a `]` into such a name.
                let end = if dialect == TSql {
                    self.quoted_end(start + 1, b']', false)
                } else {
                    (self.find(start + 1, |byte| byte == b']') + 1).min(self.sql.len())
                };
                (Kind::Name, end)
            }
            b'(' => (Kind::Open, start + 1),
            b')' => (Kind::Close, start + 1),
            b',' => (Kind::Comma, start + 1),
            b';' => (Kind::Semicolon, start + 1),
            b'-' if second == Some(b'-') && self.dashes_are_a_comment(start) => {
                (Kind::Comment, self.find(start, |byte| byte == b'\n'))
            }
            b'#' if dialect == MySql => (Kind::Comment, self.find(start, |byte| byte == b'\n')),
            b'#' if dialect == TSql => (Kind::Word, self.word_end(start)),
            b'/' if second == Some(b'*') => {
                let third = self.byte(start + 2);
                let hint = third == Some(b'+') || (third == Some(b'!') && dialect == MySql);
                (if hint { Kind::Hint } else { Kind::Comment }, self.block_end(start + 2))
            }
            b'0'..=b'9' => self.number(start),
            b'.' if second.is_some_and(|byte| byte.is_ascii_digit())
                && !self.follows_name(start) =>
            {
                (Kind::Number, self.number_end(start))
            }
            b'.' if second != Some(b'.') => (Kind::Dot, start + 1),
            b'$' => self.dollar(start, second),
            b'@' if dialect == Sqlite && second.is_some_and(|byte| is_word_byte(byte, dialect)) => {
                (Kind::Placeholder, self.word_end(start + 1))
            }
            b'@' if matches!(dialect, MySql | TSql) => {
                let from = start + if second == Some(b'@') { 2 } else { 1 };
                (Kind::Word, self.word_end(from))
            }
            b':' if self.brackets == 0 && second.is_some_and(is_word_start) => {
                (Kind::Placeholder, self.word_end(start + 1))
            }
            b'?' => self.question_mark(start, second),
            byte if is_word_start(byte) => self.word(start, first, second),
            _ => (Kind::Operator, self.operator_end(start).max(start + 1)),
        }
    }

    /// MySQL takes `--` for a comment only before white space, a control or the end.
    fn dashes_are_a_comment(&mut self, start: usize) -> bool {
        self.dialect != Dialect::MySql || self.byte(start + 2).is_none_or(|byte| byte <= b' ')
    }

    /// A `.` right after a name (no space between) separates names.
    fn follows_name(&mut self, start: usize) -> bool {
        let Some(before) = start.checked_sub(1).and_then(|at| self.byte(at)) else { return false };
        self.after_operand
            && (is_word_byte(before, self.dialect) || matches!(before, b'"' | b'`' | b']'))
    }

    fn number(&mut self, start: usize) -> (Kind, usize) {
        let end = self.number_end(start);
        // In MySQL a name may start with digits (`2fa_codes`), though not be all digits.
        if self.dialect == Dialect::MySql && self.byte(end).is_some_and(is_word_start) {
            let word = self.word_end(start);
            if word > end {
                return (Kind::Word, word);
            }
        }
        (Kind::Number, end)
    }

    fn dollar(&mut self, start: usize, second: Option<u8>) -> (Kind, usize) {
        let digit = second.is_some_and(|byte| byte.is_ascii_digit());
        match self.dialect {
            Dialect::Postgres => {
                if digit {
                    return (
                        Kind::Placeholder,
                        self.find(start + 1, |byte| !byte.is_ascii_digit()),
                    );
                }
                match self.dollar_end(start) {
                    Some(end) => (Kind::String, end),
                    None => (Kind::Operator, start + 1),
                }
            }
            Dialect::Sqlite => (Kind::Placeholder, self.word_end(start + 1)),
            // Money literals: `$12.50`.
            Dialect::TSql if digit => (Kind::Number, self.number_end(start + 1)),
            Dialect::TSql => (Kind::Operator, start + 1),
            Dialect::MySql => (Kind::Word, self.word_end(start + 1)),
        }
    }

    /// `?`, `?1`, or PostgreSQL's JSON operators `?`, `?|`, `?&`: those stand where a
    /// binary operator can, behind an operand, and a placeholder never does.
    fn question_mark(&mut self, start: usize, second: Option<u8>) -> (Kind, usize) {
        if self.dialect == Dialect::Postgres {
            if self.after_operand {
                return (Kind::Operator, self.postgres_operator_end(start));
            }
            // `??` is how JDBC writes the operator.
            if second == Some(b'?') {
                return (Kind::Operator, start + 2);
            }
        }
        (Kind::Placeholder, self.find(start + 1, |byte| !byte.is_ascii_digit()))
    }

    /// A word, or a string with a prefix: `E'…'`, `N'…'`, `X'…'`, `B'…'`, `U&'…'`.
    fn word(&mut self, start: usize, first: u8, second: Option<u8>) -> (Kind, usize) {
        let lower = first.to_ascii_lowercase();
        let postgres = self.dialect == Dialect::Postgres;
        if second == Some(b'\'') {
            let escapes =
                (postgres && lower == b'e') || (self.dialect == Dialect::MySql && lower == b'n');
            if escapes || matches!(lower, b'n' | b'x' | b'b') {
                return (Kind::String, self.quoted_end(start + 2, b'\'', escapes));
            }
        }
        if postgres && lower == b'u' && second == Some(b'&') {
            match self.byte(start + 2) {
                Some(b'\'') => return (Kind::String, self.quoted_end(start + 3, b'\'', false)),
                Some(b'"') => return (Kind::Name, self.quoted_end(start + 3, b'"', false)),
                _ => {}
            }
        }
        (Kind::Word, self.word_end(start))
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.find(self.pos, |byte| !matches!(byte, b' ' | b'\t'..=b'\r'));
        // A byte order mark at the very start is white space.
        let start = if start == 0 && self.sql.starts_with('\u{feff}') { 3 } else { start };
        let first = self.byte(start)?;
        let (kind, end) = if start == 3 && self.pos == 0 && first.is_ascii_whitespace() {
            self.pos = start;
            return self.next();
        } else {
            self.token(start, first)
        };
        self.pos = end;
        let token = Token { kind, start, end };
        match kind {
            Kind::Comment | Kind::Hint => {}
            Kind::Word => self.after_operand = !is_before_operand(token.text(self.sql)),
            Kind::Name | Kind::String | Kind::Number | Kind::Placeholder | Kind::Close => {
                self.after_operand = true;
            }
            Kind::Semicolon => {
                self.after_operand = false;
                self.brackets = 0;
            }
            Kind::Operator if first == b'[' => {
                self.brackets = self.brackets.saturating_add(1);
                self.after_operand = false;
            }
            Kind::Operator if first == b']' => {
                self.brackets = self.brackets.saturating_sub(1);
                self.after_operand = true;
            }
            _ => self.after_operand = false,
        }
        Some(token)
    }
}

/// Starts a word: a letter, `_`, or any character beyond ASCII.
const fn is_word_start(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic() || byte >= 0x80
}

const fn is_word_byte(byte: u8, dialect: Dialect) -> bool {
    is_word_start(byte)
        || byte.is_ascii_digit()
        || byte == b'$'
        || (matches!(dialect, Dialect::TSql) && matches!(byte, b'#' | b'@'))
}

/// The statements of a script, in order: byte ranges without the separator.
///
/// Splits at `;` outside of strings, comments, parentheses and procedural bodies;
/// at `GO` on its own line in T-SQL; and honours `DELIMITER` in MySQL. Ranges that
/// hold only comments and white space are left out.
#[derive(Clone, Debug)]
pub struct Statements<'a> {
    lexer: Lexer<'a>,
    delimiter: Option<&'a str>,
}

impl<'a> Statements<'a> {
    /// Splits `sql`, read as `dialect`.
    #[must_use]
    pub const fn new(sql: &'a str, dialect: Dialect) -> Self {
        Self { lexer: Lexer::new(sql, dialect), delimiter: None }
    }

    /// Bytes looked at so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.lexer.steps()
    }

    /// `GO` alone on its line (a count may follow): the end of a T-SQL batch.
    fn is_go(&self, token: Token) -> bool {
        let sql = self.lexer.sql;
        if self.lexer.dialect != Dialect::TSql || !token.text(sql).eq_ignore_ascii_case("go") {
            return false;
        }
        let before =
            sql.get(..token.start).unwrap_or("").bytes().rev().take_while(|&byte| byte != b'\n');
        let after = sql.get(token.end..).unwrap_or("").bytes().take_while(|&byte| byte != b'\n');
        // A line that is long before its GO is no batch separator; the caps keep this linear.
        before.take(65).enumerate().all(|(at, byte)| at < 64 && byte.is_ascii_whitespace())
            && after
                .take(65)
                .enumerate()
                .all(|(at, byte)| at < 64 && (byte.is_ascii_whitespace() || byte.is_ascii_digit()))
    }
}

impl<'a> Iterator for Statements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let sql = self.lexer.sql;
        let mut range: Option<(usize, usize)> = None;
        let mut parens = 0_u32;
        let (mut blocks, mut words) = (0_u32, 0_u32);
        // CREATE … PROCEDURE/FUNCTION/TRIGGER/EVENT: BEGIN opens a body, not a transaction.
        let (mut creates, mut has_body) = (false, false);
        let mut last_was_end = false;
        while let Some(token) = self.lexer.next() {
            let text = token.text(sql);
            if let Some(delimiter) = self.delimiter
                && !matches!(token.kind, Kind::String | Kind::Name | Kind::Comment | Kind::Hint)
                && sql.get(token.start..).is_some_and(|rest| rest.starts_with(delimiter))
            {
                self.lexer.restart_at(token.start + delimiter.len());
                match range {
                    Some((start, end)) => return sql.get(start..end),
                    None => continue,
                }
            }
            match token.kind {
                Kind::Semicolon if self.delimiter.is_none() && parens == 0 && blocks == 0 => {
                    if let Some((start, end)) = range {
                        return sql.get(start..end);
                    }
                    continue;
                }
                Kind::Comment => continue,
                Kind::Open => parens = parens.saturating_add(1),
                Kind::Close => parens = parens.saturating_sub(1),
                Kind::Word => {
                    words = words.saturating_add(1);
                    if self.is_go(token) {
                        let line_end = self.lexer.find(token.end, |byte| byte == b'\n');
                        self.lexer.restart_at(line_end);
                        match range {
                            Some((start, end)) => return sql.get(start..end),
                            None => continue,
                        }
                    }
                    if words == 1
                        && self.lexer.dialect == Dialect::MySql
                        && text.eq_ignore_ascii_case("delimiter")
                    {
                        let line_end = self.lexer.find(token.end, |byte| byte == b'\n');
                        let delimiter = sql.get(token.end..line_end).unwrap_or("").trim();
                        self.delimiter = (!matches!(delimiter, "" | ";")).then_some(delimiter);
                        self.lexer.word_break = self
                            .delimiter
                            .and_then(|text| text.bytes().next())
                            .filter(|byte| !byte.is_ascii_alphanumeric());
                        self.lexer.restart_at(line_end);
                        (range, words) = (None, 0);
                        continue;
                    }
                    let is = |known: &str| text.eq_ignore_ascii_case(known);
                    creates |= words == 1 && (is("create") || is("alter"));
                    has_body |= creates
                        && words <= 12
                        && (is("procedure") || is("function") || is("trigger") || is("event"));
                    let ended = last_was_end;
                    last_was_end = false;
                    if has_body {
                        if (is("begin") || is("case")) && !ended {
                            blocks = blocks.saturating_add(1);
                        } else if is("end") {
                            blocks = blocks.saturating_sub(1);
                            last_was_end = true;
                        } else if ended && (is("if") || is("loop") || is("while") || is("repeat")) {
                            // That END closed something that was not counted.
                            blocks = blocks.saturating_add(1);
                        }
                    }
                }
                _ => {}
            }
            range = Some((range.map_or(token.start, |(start, _)| start), token.end));
        }
        range.and_then(|(start, end)| sql.get(start..end))
    }
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
