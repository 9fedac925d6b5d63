import type { Command } from 'commander'
import { usage } from '../../core/errors.ts'
import { visible } from '../../core/names.ts'
import type { Register } from '../command.ts'
import { topics } from '../topics.ts'

/** Topics whose text is that of a command. */
const sameAsCommand: ReadonlyMap<string, readonly string[]> = new Map([
  ['providers', ['provider']],
  ['targets', ['target']],
])

export const help: Register = (parent, run) => {
  parent
    .command('help')
    .helpGroup('Start:')
    .summary('help for a command or a topic')
    .description(
      'Help for a command, or for a topic: ' +
        `${[...topics.keys(), ...sameAsCommand.keys()].join(', ')}.`,
    )
    .argument('[words...]', 'a command or a topic')
    .action(
      run((ctx, words: readonly string[]) => {
        const topic = topics.get(words.join(' '))
        if (topic !== undefined) ctx.out.raw(topic())
        else
          ctx.out.raw(
            findCommand(parent, sameAsCommand.get(words.join(' ')) ?? words).helpInformation(),
          )
        return Promise.resolve()
      }),
    )
}

function findCommand(program: Command, words: readonly string[]): Command {
  let at = program
  for (const word of words) {
    const next = at.commands.find(
      (command) => command.name() === word || command.aliases().includes(word),
    )
    if (next === undefined)
      throw usage(
        `there is no command or topic "${visible(words.join(' '), 60)}"`,
        `rotate help; topics: ${[...topics.keys()].join(', ')}`,
      )
    at = next
  }
  return at
}
