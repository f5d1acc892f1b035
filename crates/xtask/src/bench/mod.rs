//! `cargo xtask bench`: Edgeweir and the alternatives, side by side in one run.
//!
//! One file per group of rows. A group measures its rows in turn, round after round, so
//! that whatever else the machine does meets all of them alike. What a reader should
//! compare is the ratio to the group's first row in the column of processor time: it
//! depends least on what else runs. Requests per second and latencies of a busy machine
//! say more about the machine.

mod cache;
mod core;
mod limit;
mod load;
mod node;
mod proxy;

use std::path::Path;

use anyhow::{Result, bail};

use crate::child::say;
use crate::tree::Tree;

/// Measures the group `name`, or all of them.
pub(crate) fn run(tree: &Tree, envoy: &Path, name: Option<&str>) -> Result<()> {
    if !matches!(name, None | Some("proxy" | "limit" | "cache" | "core" | "node")) {
        bail!("no such group; there are proxy, limit, cache, core and node");
    }
    let is_asked = |group| name.is_none_or(|name| name == group);
    if is_asked("core") {
        core::run(tree)?;
    }
    if is_asked("node") {
        node::run(tree)?;
    }
    if is_asked("proxy") {
        proxy::run(tree, envoy)?;
    }
    if is_asked("limit") {
        limit::run(tree, envoy)?;
    }
    if is_asked("cache") {
        cache::run(tree, envoy)?;
    }
    Ok(())
}

/// A table for a terminal and for Markdown alike.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| match column {
                    0 => format!("{cell:<0$}", width(column)),
                    _ => format!("{cell:>0$}", width(column)),
                })
                .collect();
            say(&format!("| {} |", cells.join(" | ")));
            if number == 0 {
                let rule = |column| match column {
                    0 => format!(":{}", "-".repeat(width(column) - 1)),
                    _ => format!("{}:", "-".repeat(width(column) - 1)),
                };
                let rules: Vec<String> = (0..columns).map(rule).collect();
                say(&format!("| {} |", rules.join(" | ")));
            }
        }
    }
}
