//! Which literals of a statement are secrets.
//!
//! Statements that set passwords carry them as text, and a log or a sample would
//! keep them. [`mask`] is applied to every text before it is stored or shown.

use alloc::string::String;

use super::lexer::{Dialect, Kind, Lexer};

/// Objects whose definition may hold a secret in any of its strings.
const SECRETIVE: &[&str] = &[
    "role",
    "user",
    "login",
    "subscription",
    "server",
    "credential",
    "group",
    "certificate",
    "secret",
    "key",
];

/// `sql` with each secret as `'***'`, or `None` if there is none.
///
/// All strings of `CREATE`, `ALTER` and `SET` statements about roles, users, logins,
/// subscriptions, servers, user mappings and credentials; the string behind
/// `PASSWORD` or `IDENTIFIED BY` anywhere; and any string that says `password=`.
/// Linear in the text.
#[must_use]
pub fn mask(sql: &str, dialect: Dialect) -> Option<String> {
    let mut masked: Option<String> = None;
    let mut copied = 0;
    let (mut words, mut defines, mut secretive, mut expects) = (0_u32, false, false, false);
    for token in Lexer::new(sql, dialect) {
        let text = token.text(sql);
        let is = |known: &str| text.eq_ignore_ascii_case(known);
        match token.kind {
            Kind::Word => {
                words = words.saturating_add(1);
                if words == 1 {
                    defines = ["create", "alter", "set", "grant", "change", "drop"]
                        .iter()
                        .any(|verb| is(verb));
                }
                secretive |= defines
                    && words <= 6
                    && (is("password") || SECRETIVE.iter().any(|object| is(object)));
                expects = is("password")
                    || is("identified")
                    || (expects && (is("by") || is("with") || is("as")));
            }
            Kind::Semicolon => (words, defines, secretive, expects) = (0, false, false, false),
            Kind::String if secretive || expects || says_password(text) => {
                let out = masked.get_or_insert_with(|| String::with_capacity(sql.len()));
                out.push_str(sql.get(copied..token.start).unwrap_or(""));
                out.push_str("'***'");
                copied = token.end;
                expects = false;
            }
            Kind::Operator | Kind::Open | Kind::Comment | Kind::Hint => {}
            _ => expects = false,
        }
    }
    if let Some(out) = &mut masked {
        out.push_str(sql.get(copied..).unwrap_or(""));
    }
    masked
}

/// A connection string with a password, or a URL with one.
fn says_password(text: &str) -> bool {
    let has = |needle: &[u8]| {
        text.as_bytes().windows(needle.len()).any(|at| at.eq_ignore_ascii_case(needle))
    };
    has(b"password=") || has(b"pwd=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_nothing_else_is() {
        use Dialect::{MySql, Postgres, TSql};
        for (dialect, sql, expected) in [
            (
                Postgres,
                "CREATE ROLE bob LOGIN PASSWORD 'x;y' VALID UNTIL 'z'",
                Some("CREATE ROLE bob LOGIN PASSWORD '***' VALID UNTIL '***'"),
            ),
            (
                Postgres,
                "alter user bob with encrypted password E'a\\'b'",
                Some("alter user bob with encrypted password '***'"),
            ),
            (
                Postgres,
                "CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'b', password 'x')",
                Some("CREATE USER MAPPING FOR bob SERVER s OPTIONS (user '***', password '***')"),
            ),
            (
                Postgres,
                "CREATE SUBSCRIPTION s CONNECTION 'host=h password=x' PUBLICATION p",
                Some("CREATE SUBSCRIPTION s CONNECTION '***' PUBLICATION p"),
            ),
            (
                Postgres,
                "CREATE ROLE bob PASSWORD $x$secret$x$",
                Some("CREATE ROLE bob PASSWORD '***'"),
            ),
            (
                Postgres,
                "select dblink('dbname=x Password=y', 'select 1')",
                Some("select dblink('***', 'select 1')"),
            ),
            (
                MySql,
                "CREATE USER 'a'@'b' IDENTIFIED BY \"x\"",
                Some("CREATE USER '***'@'***' IDENTIFIED BY '***'"),
            ),
            (MySql, "SET PASSWORD FOR 'a' = 'x'", Some("SET PASSWORD FOR '***' = '***'")),
            (
                TSql,
                "CREATE LOGIN a WITH PASSWORD = N'x'",
                Some("CREATE LOGIN a WITH PASSWORD = '***'"),
            ),
            (
                Postgres,
                "UPDATE users SET password = 'x', name = 'y'",
                Some("UPDATE users SET password = '***', name = 'y'"),
            ),
            (Postgres, "SELECT * FROM users WHERE name = 'user'", None),
            (Postgres, "CREATE TABLE t (a text default 'x')", None),
            (Postgres, "select 'password'", None),
        ] {
            assert_eq!(mask(sql, dialect).as_deref(), expected, "{sql}");
        }
    }
}
