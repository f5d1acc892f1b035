//! What a SQL text is: its tokens, fingerprint, and what is wrong with it.
