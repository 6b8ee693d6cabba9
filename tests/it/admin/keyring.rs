//! Another key-encryption key without a restart: the keyring file changes, the server takes notice, the former key goes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_domain::TenantId;
use jackfield_server_config::Config;
use jackfield_testkit::{Backend, Client, TestServer, fixture, on_both};
use uuid::Uuid;

use super::rewrap::{ended, start};
use super::{create, created, server_info};
use crate::steps;
