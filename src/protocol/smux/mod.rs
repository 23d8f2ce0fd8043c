//! smux version 1, sans-IO.
