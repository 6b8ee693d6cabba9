#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (jackfield_testkit::fuzz::target("license_response").check)(data);
});
