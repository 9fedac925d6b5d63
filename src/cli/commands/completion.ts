import { Argument, type Command } from 'commander'
import { globalOptions } from '../globals.ts'
import type { Register } from '../command.ts'

export const completion: Register = (parent, run) => {
  parent
    .command('completion')
    .helpGroup('Start:')
    .summary('completion script for a shell')
    .description(
      'Prints a completion script. Commands and flags are completed, names of secrets are ' +
        'not: that would open the vault.\n\n' +
        'Examples:\n  source <(rotate completion bash)                       # bash\n  rotate ' +
        'completion zsh > "${fpath[1]}/_rotate"          # zsh\n  rotate completion fish | ' +
        'source                        # fish',
    )
    .addArgument(new Argument('<shell>', 'which shell').choices(['bash', 'zsh', 'fish']))
    .action(
      run((ctx, shell: 'bash' | 'zsh' | 'fish') => {
        ctx.out.raw(scripts[shell](levels(parent)))
        return Promise.resolve()
      }),
    )
}

interface Level {
  /** The words before it: empty for the program, `schedule` for a group. */
  readonly words: string
  readonly commands: readonly { readonly name: string; readonly summary: string }[]
  readonly flags: readonly string[]
}

const globalFlags = globalOptions
  .flatMap(({ flags }) => /--[a-z-]+/.exec(flags)?.[0] ?? [])
  .concat('--help')

function levels(program: Command): readonly Level[] {
  const found: Level[] = []
  const visit = (command: Command, words: readonly string[]): void => {
    const own = command.options
      .filter((option) => !option.hidden)
      .flatMap((option) => option.long ?? [])
    found.push({
      words: words.join(' '),
      commands: command.commands.map((child) => ({
        name: child.name(),
        summary: child.summary() || child.name(),
      })),
      flags: [...new Set([...own, ...globalFlags])].toSorted(),
    })
    for (const child of command.commands) {
      for (const name of [child.name(), ...child.aliases()]) visit(child, [...words, name])
    }
  }
  visit(program, [])
  return found
}

/**
 * The words typed so far that name a command, as a function of the shell's own: options
 * are skipped.
 */
const scripts: Readonly<Record<'bash' | 'zsh' | 'fish', (all: readonly Level[]) => string>> = {
  bash: (all) => `# bash completion of rotate
_rotate() {
  local cur=\${COMP_WORDS[COMP_CWORD]} words="" word next i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    [[ $word == -* ]] && continue
    next="\${words:+$words }$word"
    case "$next" in
      ${all
        .filter(({ words }) => words !== '')
        .map(({ words }) => `"${words}"`)
        .join(' | ')}) words=$next ;;
    esac
  done
  case "$words" in
${all
  .map(
    ({ words, commands, flags }) =>
      `    "${words}") COMPREPLY=($(compgen -W ` +
      `"${[...commands.map(({ name }) => name), ...flags].join(' ')}" -- "$cur")) ;;`,
  )
  .join('\n')}
  esac
  [[ $cur != -* && \${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- "$cur"))
}
complete -o filenames -F _rotate rotate
`,
  zsh: (all) => `#compdef rotate
_rotate() {
  local path="" next word i
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    [[ $word == -* ]] && continue
    next="\${path:+$path }$word"
    case "$next" in
      ${all
        .filter(({ words }) => words !== '')
        .map(({ words }) => `"${words}"`)
        .join(' | ')}) path=$next ;;
    esac
  done
  local -a commands flags
  case "$path" in
${all
  .map(
    ({ words, commands, flags }) =>
      `    "${words}")\n      ` +
      `commands=(${commands.map(({ name, summary }) => `'${name}:${summary.replaceAll("'", '').replaceAll(':', ' ')}'`).join(' ')})\n ` +
      `     flags=(${flags.join(' ')})\n      ;;`,
  )
  .join('\n')}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then
    compadd -a flags
  elif (( \${#commands} )); then
    _describe command commands
  else
    _files
  fi
}
if [ "\${funcstack[1]}" = "_rotate" ]; then _rotate "$@"; else compdef _rotate rotate; fi
`,
  fish: (all) => {
    const quoted = (text: string): string =>
      `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
    const when = (words: string): string =>
      words === ''
        ? '__fish_use_subcommand'
        : words
            .split(' ')
            .map((word) => `__fish_seen_subcommand_from ${word}`)
            .join('; and ')
    const lines = all.flatMap(({ words, commands, flags }) => [
      ...commands.map(
        ({ name, summary }) =>
          `complete -c rotate -f -n ${quoted(when(words))} -a ${name} -d ${quoted(summary)}`,
      ),
      ...flags.map((flag) => `complete -c rotate -n ${quoted(when(words))} -l ${flag.slice(2)}`),
    ])
    return `# fish completion of rotate\n${lines.join('\n')}\n`
  },
}
