#![allow(dead_code)]
mod admin;
mod configuration;
mod credentials;
mod steps;
mod user_connector;
