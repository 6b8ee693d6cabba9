//! ConnectionService.
