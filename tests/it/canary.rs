//! No secret where it does not belong.
