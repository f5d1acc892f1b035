//! One HTTP exchange at a proxy: limit, cache and trace together.
