//! Who gets a connection, and which targets are healthy.
