/**
 * `ods-billing completion bash|zsh`: a script for the shell, made of the commands as they are, so that it is never behind them.
 * zsh runs the same function through its bashcompinit.
 */
import type { Command } from 'commander'

/** «events send» → its subcommands and options. */
function wordsOf(program: Command): Map<string, string[]> {
  const words = new Map<string, string[]>()
  const walk = (command: Command, path: readonly string[]): void => {
    const children = command.commands.filter((child) => child.name() !== 'help')
    const options = command.options.flatMap(({ long }) => (long === undefined || long === null ? [] : [long]))
    words.set(path.join(' '), [...children.map((child) => child.name()), ...options, '--help'])
    for (const child of children) walk(child, [...path, child.name()])
  }
  walk(program, [])
  return words
}

export function completionScript(program: Command, shell: 'bash' | 'zsh'): string {
  const cases = [...wordsOf(program)].map(([path, words]) => `    '${path}') words='${words.join(' ')}' ;;`)
  const script = `# Completion for releve and ods-billing. ${shell === 'bash' ? 'bash: eval "$(ods-billing completion bash)"' : 'zsh: eval "$(ods-billing completion zsh)"'}
_releve() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path='' i word
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    case "$word" in -*) ;; *) if _releve_words "\${path:+$path }$word" >/dev/null; then path="\${path:+$path }$word"; fi ;; esac
  done
  # compgen -W of zsh does not look at what stands there already.
  COMPREPLY=()
  for word in $(_releve_words "$path"); do
    case "$word" in "$current"*) COMPREPLY+=("$word") ;; esac
  done
  # Nothing of ours fits: the shell's own names of files.
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}
_releve_words() {
  local words
  case "$1" in
${cases.join('\n')}
    *) return 1 ;;
  esac
  printf '%s\\n' "$words"
}
complete -F _releve releve ods-billing
`
  return shell === 'bash' ? script : `autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n${script}`
}

export function completionCommand(program: Command): void {
  program
    .command('completion <shell>')
    .description('a script for bash or zsh: eval "$(ods-billing completion bash)"')
    .action((shell: string, _: unknown, command: Command) => {
      if (shell !== 'bash' && shell !== 'zsh')
        command.error(`error: there is no completion for «${shell}»: bash or zsh`)
      else process.stdout.write(completionScript(program, shell))
    })
}
