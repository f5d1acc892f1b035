use super::Dialect::{MySql, Postgres, Sqlite, TSql};
use super::*;

#[test]
fn literals_lists_spacing_and_case_are_merged() {
    for (dialect, sql, expected) in [
        (
            Postgres,
            "SELECT  a,b FROM T WHERE x = 'It''s' -- why\n AND y=5;",
            "select a, b from t where x = ? and y = ?",
        ),
        (Postgres, "select -1, a -1, a - 1, (-1), a*-1", "select ?, a - ?, a - ?, (?), a * ?"),
        (Postgres, "select a from t where id in (1, 2,3)", "select a from t where id in (...)"),
        (Postgres, "select a from t where id in ($1)", "select a from t where id in (...)"),
        (
            Postgres,
            "select a from t where id in (1, null)",
            "select a from t where id in (?, null)",
        ),
        (
            Postgres,
            "select a from t where id in (select 1)",
            "select a from t where id in (select ?)",
        ),
        (
            Postgres,
            "select a from t where (a,b) in ((1,2),(3,4))",
            "select a from t where(a, b) in ((?, ?))",
        ),
        (
            Postgres,
            "insert into t (a,b) values (1,'x'),(2,null), (DEFAULT,'z')",
            "insert into t(a, b) values (?, ?)",
        ),
        (
            Postgres,
            "insert into t values (1,now()),(2,now()) returning id",
            "insert into t values (?, now()) returning id",
        ),
        (Postgres, "insert into t values (1),(2,3)", "insert into t values (?), (?, ?)"),
        (
            Postgres,
            "select * from t order by 2, a limit 5",
            "select * from t order by 2, a limit ?",
        ),
        (Postgres, "select count ( * ) from t group by 1", "select count(*) from t group by 1"),
        (Postgres, "select d ? 'a', x::int, a[1]", "select d ?? ?, x::int, a[?]"),
        (Postgres, "select /*+ Hint(a) */ 1 /* x */", "select /*+ Hint(a) */ ?"),
        (Postgres, r#"select "A" from "b c""#, r#"select "A" from "b c""#),
        (MySql, r#"select "x", `y` from t where a = "z" # c"#, "select ?, `y` from t where a = ?"),
        (
            Sqlite,
            "select a from t where b = :b and c = ?2",
            "select a from t where b = ? and c = ?",
        ),
        (
            TSql,
            "select top 5 a from [dbo].[T] where b = @p",
            "select top ? a from [dbo].[T] where b = @p",
        ),
    ] {
        let expected = expected.replace("where(", "where (");
        assert_eq!(shape(sql, dialect), expected, "{sql}");
    }
}

#[test]
fn a_shape_is_its_own_shape() {
    for sql in [
        "select a from t where id in (1,2)",
        "insert into t(a) values (1),(2)",
        "select -1 -1",
        "select a ? 'b' from t",
    ] {
        let once = shape(sql, Postgres);
        assert_eq!(shape(&once.replace("...", "?"), Postgres), once, "{sql}");
    }
}

#[test]
fn what_differs_stays_apart() {
    let pairs = [
        ("select a from t", "select b from t"),
        ("select 'a b' x", "select 'a b' y"),
        ("select a from \"T\"", "select a from t"),
        ("select a from t where b is null", "select a from t where b is not null"),
        ("select a from t where b = null", "select a from t where b = 1"),
        ("select a from t order by 1", "select a from t order by 2"),
        ("select a from t where b not in (1,2)", "select a from t where b not in (1,null)"),
        ("insert into t values (1)", "insert into t values (1,2)"),
        ("insert into t values (1,now())", "insert into t values (1,2)"),
        ("select a - 1", "select a + 1"),
        ("select /*+ a */ 1", "select /*+ b */ 1"),
        ("select a --1\n + 2", "select a - 1 + 2"),
        ("select $$a$$ from t", "select a from t"),
        ("select 1; select 2", "select 1"),
        ("select a from t where b = 1 or c = 2", "select a from t where b = 1 and c = 2"),
        ("select d ? 'x' from t", "select d 'x' from t"),
        ("select a.b", "select a, b"),
        ("select f(a)", "select f, (a)"),
    ];
    for (a, b) in pairs {
        for level in [Level::Exact, Level::Shape, Level::Structure] {
            assert_ne!(
                fingerprint(a, Postgres, level),
                fingerprint(b, Postgres, level),
                "{a} | {b}"
            );
        }
    }
}

#[test]
fn structure_merges_spellings_of_one_question() {
    for (a, b) in [
        ("select a from t where b in (1,2)", "select a from t where b = 1"),
        ("select a from t where b = any($1)", "select a from t where b = 1"),
        ("select a from t where b = ANY($1::int[])", "select a from t where b in (1)"),
        ("select a from t where b in ('x'::uuid)", "select a from t where b = $1"),
        ("select a from t where b not in (1)", "select a from t where b <> 1"),
        ("select a as x from t", "select a as y from t"),
        ("select date '2020-01-01'", "select '2020-01-01'::date"),
        ("select true", "select 1"),
    ] {
        let form = |sql| normal_form(sql, Postgres, Level::Structure);
        assert_eq!(form(a), form(b));
        assert_ne!(shape(a, Postgres), shape(b, Postgres));
    }
}

#[test]
fn a_fingerprint_is_the_same_tomorrow() {
    let print = fingerprint("SELECT 1", Postgres, Level::Shape);
    assert_eq!(alloc::format!("{print}"), alloc::format!("{}", Fingerprint::of_text("select ?")));
}
