//! Configuration: text in, `Config` or every problem out.
