#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (jackfield_testkit::fuzz::target("page_token").check)(data);
});
