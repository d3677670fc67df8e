//! memserver
