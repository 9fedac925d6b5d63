/**
 * PostgreSQL 18: statements that are carried out late, and what is refused before
 * anything is done.
 */
process.env['ROTATE_TEST_POSTGRES'] = '18'
await import('../adapters/postgres.late.test.ts')
await import('../adapters/postgres.refused.test.ts')
