//! KeyService.
