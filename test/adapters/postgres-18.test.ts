/**
 * Runs the tests of the provider `postgres` against PostgreSQL 18. The version of Debian,
 * which they run against otherwise, has older rules for who may change a role.
 */
process.env['ROTATE_TEST_POSTGRES'] = '18'
await import('./postgres.test.ts')
