//! The JSON document that sets up the gate.
