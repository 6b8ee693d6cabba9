//! AdminService: tenants, re-wraps, facts of the server.
