/**
 * The provider `postgres` against PostgreSQL 18: the same tests as against Debian's,
 * whose rules for who may change a role are older.
 */
process.env['ROTATE_TEST_POSTGRES'] = '18'
await import('./postgres.test.ts')
