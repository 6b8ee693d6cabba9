#![allow(dead_code)]
mod canary;
mod storage;
