//! Streaming lists: pages, tokens, resuming.
