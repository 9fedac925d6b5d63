/**
 * Half a year of a team with four credentials (recipe-world.ts), with nothing but
 * `rotate run-due` as cron calls it and a person where a provider has no other way:
 * OpenAI every 30 days, the database every 90, Stripe every 60, GitHub every 180.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { hasPostgres, type Server, startPostgres } from '../fakes/postgres-server.ts'
import { type Due, type Message, type Name, names, pathOf, Recipe } from './recipe-world.ts'
import { canMoveClock, HOUR } from './rotation-world.ts'

// Half a year of `run-due` starts many processes, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 400_000 })

const all = names.map(pathOf)
const rotated = ({ rotated: runs }: Due): readonly string[] =>
  runs.map(({ path }) => path).toSorted()
const revoked = ({ revoked: ended }: Due): readonly unknown[] =>
  ended
    .map((one) => {
      const { path, state } = one as { path: string; state: string }
      return `${path} ${state}`
    })
    .toSorted()
const titles = (messages: readonly Message[]): readonly string[] =>
  messages
    .filter(({ from }) => from === 'slack')
    .map(({ title }) => title)
    .toSorted()
const hint = (value: string): string => `${/^[a-z]+[-_]/.exec(value)?.[0] ?? ''}…${value.slice(-4)}`

describe.skipIf(!hasPostgres || !canMoveClock)('the recipe', () => {
  let server: Server
  let recipe: Recipe
  let serial = 0
  beforeAll(async () => {
    server = await startPostgres()
  })
  afterAll(() => server.stop())
  afterEach(() => recipe.stop())

  /**
   * The text of the one message with this title; Slack and mail have the same text in
   * different forms.
   */
  function told(news: readonly Message[], title: string): string {
    const [slack, mail, ...more] = news.filter((one) => one.title.endsWith(title))
    expect([slack?.from, mail?.from, more.length], title).toEqual(['slack', 'mail', 0])
    const plain = (text = ''): readonly string[] =>
      text
        .replace(/^[^*]*(?=\*)/, '')
        .replaceAll(/[*`]/g, '')
        .replace(/\n-- \n[^]*$/, '')
        .split('\n')
        .map((line) => line.trim().replace(/: +/, ': '))
        .filter((line) => line !== '')
    expect(plain(mail?.text)).toEqual(plain(slack?.text))
    return slack?.text ?? ''
  }

  /**
   * Asks for all four values, again and again, while something else happens: at no moment
   * is there one that its provider refuses.
   */
  async function whileScriptsRun<T>(work: Promise<T>): Promise<T> {
    let over = false
    const ended = work.finally(() => (over = true))
    // Awaited below, after the loop has seen that it is over.
    ended.catch(() => undefined)
    let asked = 0
    for (; !over; asked++)
      for (const name of names)
        expect(await recipe.accepts(name, await recipe.get(name)), name).toBe(true)
    expect(asked).toBeGreaterThan(2)
    return ended
  }

  test('half a year: warned, rotated, redeployed, checked, told, and after a day of grace only the new value lives', async () => {
    recipe = await new Recipe(server, ++serial).start()
    const { world } = recipe
    const next = async (name: Name): Promise<number> => {
      const { rotation } = await world.data<{ rotation: { nextRotationAt: string } }>([
        'schedule',
        'show',
        pathOf(name),
      ])
      return Date.parse(rotation.nextRotationAt)
    }
    /**
     * Expects the next rotation in this many days; how long the rotation itself took does
     * not matter.
     */
    const expectNext = async (name: Name, days: number): Promise<void> => {
      const left = ((await next(name)) - world.now()) / DAY
      expect(Math.abs(left - days), `${name}: next in ${left} days`).toBeLessThan(0.01)
    }
    /** Lets time pass up to this day of the half year, at the hour at which it began. */
    let today = 0
    const until = (day: number): void => {
      world.pass((day - today) * DAY)
      today = day
    }

    // Day 0. All four credentials were made by hand and are in use; nothing is due.
    expect(rotated(await recipe.cron(0))).toEqual([])
    expect(recipe.news()).toEqual([])
    for (const name of names) await recipe.expectSettled(name, 1)
    for (const [i, name] of names.entries()) await expectNext(name, [30, 90, 60, 180][i] ?? 0)
    expect(await recipe.cron(0)).toMatchObject({
      rotated: [],
      failed: [],
      revoked: [],
      notified: [],
    })

    // Day 23. The rotation of day 30 is announced a week before.
    until(23)
    await recipe.cron(0)
    const first = await recipe.get('OPENAI_API_KEY')
    const warning = told(recipe.news(), 'Upcoming Key Rotation: production/app/OPENAI_API_KEY')
    expect(warning).toContain(
      `⚠️ *Upcoming Key Rotation: ${pathOf('OPENAI_API_KEY')}*\nService: ` +
        `${pathOf('OPENAI_API_KEY')}\nCurrent key: ${hint(first)}\n`,
    )
    expect(warning).toContain(
      `Next rotation: ${new Date(await next('OPENAI_API_KEY')).toISOString()}\nIn: 7 days\n`,
    )
    expect(warning).toContain(
      `Next: nothing; to postpone: rotate schedule skip ${pathOf('OPENAI_API_KEY')} --for 30d`,
    )

    // Day 30. OpenAI, while Render takes its time and Vercel is ahead of it; whoever asks
    // meanwhile gets a value that works.
    until(30)
    recipe.render.work = 1
    expect(rotated(await whileScriptsRun(recipe.cron(0)))).toEqual([pathOf('OPENAI_API_KEY')])
    recipe.render.work = 0
    const second = await recipe.expectSettled('OPENAI_API_KEY', 2)
    expect(second).not.toBe(first)
    expect(await recipe.accepts('OPENAI_API_KEY', first), 'both work in grace').toBe(true)
    await expectNext('OPENAI_API_KEY', 30)
    const news = recipe.news()
    expect(told(news, 'Key Rotation Started: production/app/OPENAI_API_KEY')).toMatch(
      new RegExp(
        `^🔄 \\*.*\\*\nService: .*\nOld key: ${hint(first)}\nTriggered by: ` +
          `automatic\n\`rotate audit list --run run_\\w+\`$`,
      ),
    )
    const done = told(news, 'Key Rotation Complete: production/app/OPENAI_API_KEY')
    expect(done).toContain(
      `✅ *Key Rotation Complete: ${pathOf('OPENAI_API_KEY')}*\nService: ` +
        `${pathOf('OPENAI_API_KEY')}\n`,
    )
    expect(done).toContain(
      `Old key: ${hint(first)}\nNew key: ${hint(second)}\nServices updated: 4/4\nGrace ` +
        'period: 24 h: the old key works until 2',
    )
    const [runId] = /run_\w+/.exec(done) ?? []
    const audited = await world.data<{ events: readonly { action: string }[] }>([
      'audit',
      'list',
      '--run',
      runId ?? '',
    ])
    expect(audited.events.map(({ action }) => action)).toContain('secret_rotated')

    // Hours later the grace still runs, and nothing happens.
    world.pass(23 * HOUR)
    expect(revoked(await recipe.cron(0))).toEqual([])
    expect(await recipe.accepts('OPENAI_API_KEY', first)).toBe(true)
    world.pass(HOUR)
    today = 31
    expect(revoked(await recipe.cron(0))).toEqual([`${pathOf('OPENAI_API_KEY')} revoked`])
    expect(await recipe.accepts('OPENAI_API_KEY', first)).toBe(false)
    await recipe.expectSettled('OPENAI_API_KEY', 1)
    const ended = told(recipe.news(), 'Old Key Revoked: production/app/OPENAI_API_KEY')
    expect(ended).toContain(`🗑️ *Old Key Revoked: ${pathOf('OPENAI_API_KEY')}*`)
    expect(ended).toContain(
      `Revoked key: ${hint(first)}\nProof: refused by the provider\nNext rotation: ` +
        `${new Date(await next('OPENAI_API_KEY')).toISOString()}`,
    )

    // Day 53. Stripe's key is due in a week too, and a person has to make the next one.
    until(53)
    await recipe.cron(0)
    const asked = recipe.news()
    told(asked, 'Upcoming Key Rotation: production/app/OPENAI_API_KEY')
    expect(told(asked, 'Upcoming Key Rotation: production/app/STRIPE_API_KEY')).toContain(
      `Next: make the new value`,
    )

    // Day 60. OpenAI by itself; for Stripe somebody is called, and hands the key over.
    until(60)
    const month = new Date(world.now()).toISOString().slice(0, 7)
    const sixty = await recipe.cron(22)
    expect([rotated(sixty), sixty.failed.map(({ path }) => path)]).toEqual([
      [pathOf('OPENAI_API_KEY')],
      [pathOf('STRIPE_API_KEY')],
    ])
    const oldStripe = await recipe.expectSettled('STRIPE_API_KEY', 1)
    const called = told(recipe.news(), 'Key Rotation Needs a Person: production/app/STRIPE_API_KEY')
    expect(called).toContain('<!channel> 🚨 ')
    expect(called).toContain(
      'Next: create it at https://dashboard.stripe.com/apikeys (leave the old one alive)',
    )
    await world.ok(['now', pathOf('STRIPE_API_KEY'), '-'], { input: `${recipe.dashboardKey()}\n` })
    const newStripe = await recipe.expectSettled('STRIPE_API_KEY', 2)
    await expectNext('STRIPE_API_KEY', 60)
    expect(told(recipe.news(), 'Key Rotation Complete: production/app/STRIPE_API_KEY')).toContain(
      'Triggered by: manual',
    )

    // Day 61. Only that person can expire the old one: until then it is not called
    // revoked.
    until(61)
    expect(revoked(await recipe.cron(23))).toEqual([`${pathOf('OPENAI_API_KEY')} revoked`])
    expect(await recipe.accepts('STRIPE_API_KEY', oldStripe)).toBe(true)
    const alive = told(recipe.news(), 'Old Key Still Alive: production/app/STRIPE_API_KEY')
    expect(alive).toContain(
      `Old key: ${hint(oldStripe)}\nReason: Stripe still accepts it, and only a person can ` +
        'expire it',
    )
    expect(alive).toContain(
      '\nNext: expire it at https://dashboard.stripe.com/apikeys; the next run-due sees that ' +
        'it is dead',
    )
    recipe.expireAllBut(newStripe)
    until(62)
    expect(revoked(await recipe.cron(0))).toEqual([`${pathOf('STRIPE_API_KEY')} revoked`])
    await recipe.expectSettled('STRIPE_API_KEY', 1)
    expect(titles(recipe.news())).toEqual([`Old Key Revoked: ${pathOf('STRIPE_API_KEY')}`])
    await recipe.manageStripe()

    // Day 90. The database's other role takes its turn; both can log in for a day, then
    // one.
    until(90)
    const login = await recipe.get('DATABASE')
    expect(rotated(await recipe.cron(0))).toEqual([pathOf('DATABASE'), pathOf('OPENAI_API_KEY')])
    const otherLogin = await recipe.expectSettled('DATABASE', 2)
    expect(new URL(otherLogin).username).not.toBe(new URL(login).username)
    expect(await recipe.accepts('DATABASE', login), 'both work in grace').toBe(true)
    await recipe.expectSettled('OPENAI_API_KEY', 2)
    // A notice has no character of a password.
    expect(told(recipe.news(), 'Key Rotation Complete: production/app/DATABASE')).toMatch(
      /\nOld key: fp:[0-9a-f]{8}\nNew key: fp:[0-9a-f]{8}\n/,
    )
    until(91)
    expect(revoked(await recipe.cron(0))).toEqual([
      `${pathOf('DATABASE')} revoked`,
      `${pathOf('OPENAI_API_KEY')} revoked`,
    ])
    expect(await recipe.accepts('DATABASE', login)).toBe(false)
    await recipe.expectSettled('DATABASE', 1)
    await recipe.expectSettled('OPENAI_API_KEY', 1)

    // Day 120. Stripe without a person; the one that was made by hand still ends by hand.
    until(120)
    expect(rotated(await recipe.cron(0))).toEqual([
      pathOf('OPENAI_API_KEY'),
      pathOf('STRIPE_API_KEY'),
    ])
    const managed = await recipe.expectSettled('STRIPE_API_KEY', 2)
    until(121)
    expect(revoked(await recipe.cron(23))).toEqual([`${pathOf('OPENAI_API_KEY')} revoked`])
    recipe.expireAllBut(managed)
    until(122)
    expect(revoked(await recipe.cron(0))).toEqual([`${pathOf('STRIPE_API_KEY')} revoked`])

    until(150)
    expect(rotated(await recipe.cron(0))).toEqual([pathOf('OPENAI_API_KEY')])
    until(151)
    expect(revoked(await recipe.cron(0))).toEqual([`${pathOf('OPENAI_API_KEY')} revoked`])
    recipe.news()

    // Day 180. All four are due. GitHub's token is made by a person, and revoked from
    // here.
    until(173)
    await recipe.cron(0)
    const warned = recipe.news()
    expect(titles(warned)).toEqual(all.map((path) => `Upcoming Key Rotation: ${path}`).toSorted())
    expect(told(warned, 'Upcoming Key Rotation: production/app/GITHUB_TOKEN')).toContain(
      'Next: make the new value',
    )
    expect(told(warned, 'Upcoming Key Rotation: production/app/STRIPE_API_KEY')).toContain(
      'Next: nothing',
    )
    until(180)
    const before = await Promise.all(names.map((name) => recipe.get(name)))
    const last = await recipe.cron(22)
    expect([rotated(last), last.failed.map(({ path }) => path)]).toEqual([
      all.filter((path) => path !== pathOf('GITHUB_TOKEN')).toSorted(),
      [pathOf('GITHUB_TOKEN')],
    ])
    const oldToken = await recipe.expectSettled('GITHUB_TOKEN', 1)
    expect(told(recipe.news(), 'Key Rotation Needs a Person: production/app/GITHUB_TOKEN')).toMatch(
      /Next: create it at \S+\/settings\/tokens\/new\?scopes=repo /,
    )
    await world.ok(['now', pathOf('GITHUB_TOKEN'), '-'], {
      input: `${recipe.personalToken('second')}\n`,
    })
    for (const name of names) await recipe.expectSettled(name, 2)
    until(181)
    expect(revoked(await recipe.cron(0))).toEqual(all.map((path) => `${path} revoked`).toSorted())
    for (const [i, name] of names.entries()) {
      await recipe.expectSettled(name, 1)
      expect(await recipe.accepts(name, before[i] ?? ''), name).toBe(false)
      await expectNext(name, ([30, 90, 60, 180][i] ?? 0) - 1)
    }
    expect(recipe.github.tokens.has(oldToken)).toBe(false)
    expect(titles(recipe.news()).filter((title) => title.startsWith('Old'))).toEqual(
      all.map((path) => `Old Key Revoked: ${path}`).toSorted(),
    )
    expect(await recipe.cron(0)).toMatchObject({
      rotated: [],
      failed: [],
      revoked: [],
      notified: [],
    })

    // What `history` and `audit` show afterwards.
    const { history } = await world.data<{
      history: readonly { path: string; triggeredBy: string; status: string }[]
    }>(['history'])
    const count = (name: Name, status: string, by: string): number =>
      history.filter(
        (run) => run.path === pathOf(name) && run.status === status && run.triggeredBy === by,
      ).length
    expect(
      names.map((name) => [
        count(name, 'success', 'automatic'),
        count(name, 'success', 'manual'),
        count(name, 'failed', 'automatic'),
      ]),
    ).toEqual([
      [6, 0, 0],
      [2, 0, 0],
      [2, 1, 1],
      [0, 1, 1],
    ])
    expect(await world.data(['audit', 'verify'])).toMatchObject({ ok: true })
    const csv = (
      await world.ok(['audit', 'export', '--format', 'csv', '--month', month])
    ).stdout.split('\n')
    expect(csv[0]).toBe(
      'timestamp,secret,old_key,new_key,triggered_by,status,action,actor,version,reason,run_id,seq,hash\r',
    )
    const row = csv.find(
      (line) => line.includes('secret_rotated') && line.includes(pathOf('STRIPE_API_KEY')),
    )
    expect(row).toContain(`,${hint(oldStripe)},${hint(newStripe)},manual,success,secret_rotated,`)
    recipe.expectNothingShown()
  })

  test('a Vercel deployment that keeps the old value is caught by its check; everything is put back everywhere, and the next try works', async () => {
    recipe = await new Recipe(server, ++serial).start()
    const { world, vercel } = recipe
    const old = await recipe.expectSettled('OPENAI_API_KEY', 1)
    const others = await Promise.all(names.slice(1).map((name) => recipe.get(name)))

    world.pass(30 * DAY)
    vercel.inherits = true
    const undone = await whileScriptsRun(recipe.cron(20))
    expect(undone).toMatchObject({
      rotated: [],
      failed: [{ path: pathOf('OPENAI_API_KEY'), status: 'rolled_back' }],
    })
    expect(undone.failed[0]?.targets.map(({ name, status }) => `${name} ${status}`)).toEqual(
      ['vercel', 'render', 'onepassword', 'env-file'].map((name) => `${name} restored`),
    )
    // One key was made in vain, and it is gone.
    expect(await recipe.expectSettled('OPENAI_API_KEY', 1)).toBe(old)
    expect(recipe.openai.calls.filter((call) => call.startsWith('POST '))).toHaveLength(1)
    for (const [i, name] of names.slice(1).entries())
      expect(await recipe.expectSettled(name, 1)).toBe(others[i])

    const news = recipe.news()
    expect(titles(news)).toEqual([
      `Key Rotation Rolled Back: ${pathOf('OPENAI_API_KEY')}`,
      `Key Rotation Started: ${pathOf('OPENAI_API_KEY')}`,
    ])
    const message = told(news, 'Key Rotation Rolled Back: production/app/OPENAI_API_KEY')
    expect(message).toContain(
      `<!channel> ↩️ *Key Rotation Rolled Back: ${pathOf('OPENAI_API_KEY')}*`,
    )
    expect(message).toContain(`Old key: ${hint(old)}\nNew key: sk-…`)
    expect(message).toMatch(/\nReason: .*check http is red: 503 instead of 200/)
    expect(message).toMatch(
      /\nOld key proven to work: yes\n.*\nNext: nothing is broken: the old key is current; look at it: rotate history run_/,
    )
    expect(
      news.find(({ from, title }) => from === 'mail' && title.includes('Rolled Back'))?.title,
    ).toMatch(/^URGENT: /)

    vercel.inherits = false
    world.pass(HOUR)
    expect(rotated(await recipe.cron(0))).toEqual([pathOf('OPENAI_API_KEY')])
    const value = await recipe.expectSettled('OPENAI_API_KEY', 2)
    // The value has leaked: nothing keeps its grace, and only the newest key is left.
    await world.ok(['now', pathOf('OPENAI_API_KEY'), '--emergency', '--reason', 'leaked'])
    expect(await recipe.expectSettled('OPENAI_API_KEY', 1)).not.toBe(value)
    expect(await world.data(['audit', 'verify'])).toMatchObject({ ok: true })
    recipe.expectNothingShown()
  })
})
