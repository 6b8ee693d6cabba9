//! ConfigurationService.
