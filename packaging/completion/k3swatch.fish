# fish completion for k3swatch(1)

complete -c k3swatch -f
set -l commands check explain snapshot status history restore guard run config demo
set -l none "not __fish_seen_subcommand_from $commands"
set -l file '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from check'
function __k3swatch_from # as __fish_seen_subcommand_from; the check of `config check` is another one
    __fish_seen_subcommand_from $argv; and not __fish_seen_subcommand_from config
end
complete -c k3swatch -n $none -l version -d 'Which version it is'
complete -c k3swatch -s h -l help -d 'How it is used'
complete -c k3swatch -n $none -a check -d 'One look at this host'
complete -c k3swatch -n $none -a explain -d 'Who lands where, by which rules'
complete -c k3swatch -n $none -a snapshot -d 'Capture the ruleset'
complete -c k3swatch -n $none -a status -d 'Ask the running daemon'
complete -c k3swatch -n $none -a history -d 'Past incidents'
complete -c k3swatch -n $none -a restore -d 'How to give the port back'
complete -c k3swatch -n $none -a guard -d 'Pin a port'
complete -c k3swatch -n $none -a run -d 'The daemon, in the foreground'
complete -c k3swatch -n $none -a config -d 'Look at a configuration file'
complete -c k3swatch -n $none -a demo -d 'The incident in private network namespaces'

complete -c k3swatch -n '__k3swatch_from check explain status history restore guard run' -l config -r -F -d 'Configuration file'
complete -c k3swatch -n '__k3swatch_from check explain status history restore guard' -l format -x -a 'text json'
complete -c k3swatch -n '__k3swatch_from check explain restore guard run' -l root -x -a '(__fish_complete_directories)'
complete -c k3swatch -n '__k3swatch_from check' -l port -x -a tcp/6443 -d 'Instead of those configured'
complete -c k3swatch -n '__k3swatch_from explain' -l from -x -d 'Connections from this address'
complete -c k3swatch -n '__k3swatch_from explain' -l to -x -d 'Connections to this address'
complete -c k3swatch -n '__k3swatch_from explain' -l vantage -x -a 'external local'
complete -c k3swatch -n '__k3swatch_from explain' -l snapshot -r -F -d 'Judge a capture'
complete -c k3swatch -n '__k3swatch_from explain' -a tcp/6443
complete -c k3swatch -n '__k3swatch_from history' -l since -x -a '2h 1d 1w' -d 'From then on'
complete -c k3swatch -n '__k3swatch_from snapshot' -s o -r -F -d 'Write there'
complete -c k3swatch -n '__k3swatch_from restore' -l apply -d 'Do what this host can do alone'
complete -c k3swatch -n '__k3swatch_from restore' -l rollback -r -F -d 'Put back what was removed'
complete -c k3swatch -n '__k3swatch_from restore' -s o -x -a '(__fish_complete_directories)' -d 'Save there'
complete -c k3swatch -n '__k3swatch_from restore' -a tcp/6443
complete -c k3swatch -n '__k3swatch_from guard' -a 'on off status tcp/6443'
complete -c k3swatch -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from check' -a check
complete -c k3swatch -n $file -F
complete -c k3swatch -n $file -l root -x -a '(__fish_complete_directories)'
