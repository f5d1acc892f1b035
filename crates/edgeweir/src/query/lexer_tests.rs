use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Dialect::{MySql, Postgres, Sqlite, TSql};
use super::*;

/// Tokens as `kind:text` with one letter for each kind, joined by spaces.
fn tokens(sql: &str, dialect: Dialect) -> String {
    let short = |kind| match kind {
        Kind::Word => 'w',
        Kind::Name => 'n',
        Kind::String => 's',
        Kind::Number => '#',
        Kind::Placeholder => 'p',
        Kind::Operator => 'o',
        Kind::Comment => 'c',
        Kind::Hint => 'h',
        _ => '_',
    };
    let all: Vec<String> =
        Lexer::new(sql, dialect).map(|t| format!("{}:{}", short(t.kind), t.text(sql))).collect();
    all.join(" ")
}

#[test]
fn each_dialect_reads_quotes_comments_and_numbers_its_own_way() {
    for (dialect, sql, expected) in [
        // Strings.
        (Postgres, "'it''s' 'a\\'", r"s:'it''s' s:'a\'"),
        (
            Postgres,
            r"E'a\'b' e'\\' x'1F' B'01' N'n' U&'\0041'",
            r"s:E'a\'b' s:e'\\' s:x'1F' s:B'01' s:N'n' s:U&'\0041'",
        ),
        (MySql, r#"'a\'b' "c\"d" "e""f""#, r#"s:'a\'b' s:"c\"d" s:"e""f""#),
        (Sqlite, r"'a\' 'b'", r"s:'a\' s:'b'"),
        (TSql, r"N'a\' 'b''c'", r"s:N'a\' s:'b''c'"),
        (Postgres, "$$a'b$$ $x$ $$ $y$ $x$ $1", "s:$$a'b$$ s:$x$ $$ $y$ $x$ p:$1"),
        (Postgres, "a$b$c $é$x$é$", "w:a$b$c s:$é$x$é$"),
        (Postgres, "'open", "s:'open"),
        (Postgres, "$a$open", "s:$a$open"),
        // Names.
        (Postgres, r#""a""b" U&"x" t."c""#, r#"n:"a""b" n:U&"x" w:t _:. n:"c""#),
        (MySql, "`a``b`.`c`", "n:`a``b` _:. n:`c`"),
        (
            TSql,
            "[a]]b].[c d] #tmp ##g @v @@rowcount",
            "n:[a]]b] _:. n:[c d] w:#tmp w:##g w:@v w:@@rowcount",
        ),
        (Sqlite, "[a b] `c` \"d\"", "n:[a b] n:`c` n:\"d\""),
        (Postgres, "a[1] a[1:n]", "w:a o:[ #:1 o:] w:a o:[ #:1 o:: w:n o:]"),
        (Postgres, "größe 表", "w:größe w:表"),
        (MySql, "2fa_codes 1e5 1e t.1a", "w:2fa_codes #:1e5 w:1e w:t _:. w:1a"),
        // Comments.
        (Postgres, "a /* b /* c */ d */ e", "w:a c:/* b /* c */ d */ w:e"),
        (MySql, "a /* b /* c */ d", "w:a c:/* b /* c */ w:d"),
        (Sqlite, "a /* b /* c */ d", "w:a c:/* b /* c */ w:d"),
        (Postgres, "a --b\nc #d", "w:a c:--b w:c o:# w:d"),
        (MySql, "a --b\nc -- d\n#e\nf", "w:a o:- o:- w:b w:c c:-- d c:#e w:f"),
        (
            Postgres,
            "/*+ SeqScan(t) */ /*! x */ /* open",
            "h:/*+ SeqScan(t) */ c:/*! x */ c:/* open",
        ),
        (MySql, "/*!40001 SQL_NO_CACHE */", "h:/*!40001 SQL_NO_CACHE */"),
        (Postgres, "a/*b*/c/**/d", "w:a c:/*b*/ w:c c:/**/ w:d"),
        // Numbers.
        (
            Postgres,
            "1 1.5 5001. .5 1e-3 1E+3 0x1F 0b01 0o17 1_000",
            "#:1 #:1.5 #:5001. #:.5 #:1e-3 #:1E+3 #:0x1F #:0b01 #:0o17 #:1_000",
        ),
        (Postgres, "1..10 a-1 a -1 -1", "#:1 o:.. #:10 w:a o:- #:1 w:a o:- #:1 o:- #:1"),
        (TSql, "$12.50", "#:$12.50"),
        // Operators and placeholders.
        (Postgres, "a::int :name :=x", "w:a o::: w:int p::name o::= w:x"),
        (Postgres, "d ? 'a' d ?| x d ?& y", "w:d o:? s:'a' w:d o:?| w:x w:d o:?& w:y"),
        (
            Postgres,
            "a = ? and b in (?, ?) limit ?",
            "w:a o:= p:? w:and w:b w:in _:( p:? _:, p:? _:) w:limit p:?",
        ),
        (Postgres, "d ?? 'a'", "w:d o:?? s:'a'"),
        (
            Postgres,
            "a->>'b' a#>>'{c}' a @> b a <-> b a*-1",
            "w:a o:->> s:'b' w:a o:#>> s:'{c}' w:a o:@> w:b w:a o:<-> w:b w:a o:* o:- #:1",
        ),
        (Postgres, "a<=-1 a@-1 a>--b", "w:a o:<= o:- #:1 w:a o:@- #:1 w:a o:> c:--b"),
        (Postgres, "a=/*x*/b", "w:a o:= c:/*x*/ w:b"),
        (
            MySql,
            "a<=>b a:=1 a&&b @x j->>'$.a'",
            "w:a o:<=> w:b w:a o::= #:1 w:a o:&& w:b w:@x w:j o:->> s:'$.a'",
        ),
        (Sqlite, "?1 :a @b $c a==b", "p:?1 p::a p:@b p:$c w:a o:== w:b"),
        (TSql, "a!<b ? a::b", "w:a o:!< w:b p:? w:a o::: w:b"),
        // What is no SQL.
        (Postgres, "\u{feff} select \0 \\ {}", "w:select o:\0 o:\\ o:{ o:}"),
        (Postgres, "", ""),
    ] {
        assert_eq!(tokens(sql, dialect), expected, "{dialect:?} {sql}");
    }
}

fn statements(sql: &str, dialect: Dialect) -> Vec<&str> {
    Statements::new(sql, dialect).collect()
}

#[test]
fn scripts_split_where_their_statements_end() {
    for (dialect, sql, expected) in [
        (Postgres, "a; b;; -- c\n ; 'd;e' ;", &["a", "b", "'d;e'"][..]),
        (Postgres, "do $$ begin a; b; end $$; c", &["do $$ begin a; b; end $$", "c"]),
        (
            Postgres,
            "create rule r as on insert to t do (a; b); c",
            &["create rule r as on insert to t do (a; b)", "c"],
        ),
        (
            Postgres,
            "create function f() returns int begin atomic select 1; select 2; end; c",
            &["create function f() returns int begin atomic select 1; select 2; end", "c"],
        ),
        (Postgres, "begin; a; end; b", &["begin", "a", "end", "b"]),
        (Postgres, "create table event_log (a int); b", &["create table event_log (a int)", "b"]),
        (
            Sqlite,
            "create trigger t after insert on x begin update y set z = case when 1 then 2 end; delete from q; end; a",
            &[
                "create trigger t after insert on x begin update y set z = case when 1 then 2 end; delete from q; end",
                "a",
            ],
        ),
        (
            MySql,
            "create procedure p() begin if a then b; end if; while c do d; end while; end; e",
            &["create procedure p() begin if a then b; end if; while c do d; end while; end", "e"],
        ),
        (
            MySql,
            "DELIMITER //\ncreate procedure p() a; b//\nc //\nDELIMITER ;\nd; e",
            &["create procedure p() a; b", "c", "d", "e"],
        ),
        (MySql, "delimiter $$\na$$ b; c$$", &["a", "b; c"]),
        (
            TSql,
            "select 1\nGO\nselect 2 GO\n go 5 \nselect 3;",
            &["select 1", "select 2 GO", "select 3"],
        ),
        (Postgres, " \n ; /* x */ ;", &[]),
    ] {
        assert_eq!(statements(sql, dialect), expected, "{dialect:?} {sql}");
    }
}

/// Texts that make lexers look ahead, back, or again; each is repeated.
const HOSTILE: &[&str] = &[
    "+-",
    "$a$",
    "$",
    "/*",
    "*/",
    "'",
    "\"",
    "`",
    "[",
    "(",
    ")",
    "--",
    "-",
    "a.",
    ".5",
    "1e",
    "?",
    "::",
    ":a",
    "@",
    "#",
    "E'\\",
    "/*+",
    "select (",
    "a$b$",
    "\\'",
    "$a",
    "u&",
    "x'",
    "é$",
    "go\n",
    "1_",
    "0x",
    "end if;",
    "values (1),",
    "in (1,",
    "$$",
    "* -",
    "''",
    "\"\"",
];

#[test]
fn twice_the_text_is_twice_the_work() {
    let len = if option_env!("EDGEWEIR_DEEP").is_some() { 5 << 20 } else { 6_000 };
    for unit in HOSTILE {
        for dialect in [Postgres, MySql, Sqlite, TSql] {
            let steps = |len: usize| {
                let prefix =
                    if dialect == MySql { "delimiter $$\ncreate procedure p " } else { "" };
                let sql = format!("{prefix}{}", unit.repeat(len / unit.len()));
                let mut lexer = Lexer::new(&sql, dialect);
                while lexer.next().is_some() {}
                let mut statements = Statements::new(&sql, dialect);
                while statements.next().is_some() {}
                lexer.steps() + statements.steps()
            };
            let (one, two) = (steps(len), steps(len * 2));
            assert!(two * 10 <= one * 22, "{unit:?} {dialect:?}: {one} then {two}");
            assert!(one <= 140 * len as u64, "{unit:?} {dialect:?}: {one} steps for {len} bytes");
        }
    }
}
