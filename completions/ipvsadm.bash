# Made from the table of flags (bin/ipvsadm/src/flags.rs); do not edit.
_ipvsadm() {
    local cur=${COMP_WORDS[COMP_CWORD]} words=
    COMPREPLY=()
    case ${COMP_WORDS[COMP_CWORD-1]} in
    --start-daemon) words='master backup' ;;
    --stop-daemon) words='master backup' ;;
    -s|--scheduler) words='none rr wrr lc wlc sh sed nq fo ovf dh mh twos lblc lblcr' ;;
    --pe) words='sip' ;;
    --tun-type) words='ipip gue gre' ;;
    -b|--sched-flags) words='sh-port sh-fallback mh-port mh-fallback flag-1 flag-2 flag-3' ;;
    --mcast-interface) words=$(command ls /sys/class/net) ;;
    -t|--tcp-service|-u|--udp-service|--sctp-service|-f|--fwmark-service|-M|--netmask|-r|--real-server|--tun-port|-w|--weight|-x|--u-threshold|-y|--l-threshold|--syncid|--sync-maxlen|--mcast-group|--mcast-port|--mcast-ttl) return ;;
    *) case ${COMP_WORDS[1]} in
        -A|--add-service) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -s --scheduler --pe -p --persistent -M --netmask -o --ops -b --sched-flags' ;;
        -E|--edit-service) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -s --scheduler --pe -p --persistent -M --netmask -o --ops -b --sched-flags' ;;
        -D|--delete-service) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6' ;;
        -C|--clear) words='' ;;
        -R|--restore) words='' ;;
        -S|--save) words='-n --numeric' ;;
        -a|--add-server) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -r --real-server -g --gatewaying -i --ipip -m --masquerading --tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum -w --weight -x --u-threshold -y --l-threshold' ;;
        -e|--edit-server) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -r --real-server -g --gatewaying -i --ipip -m --masquerading --tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum -w --weight -x --u-threshold -y --l-threshold' ;;
        -d|--delete-server) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -r --real-server' ;;
        -L|--list) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -c --connection --timeout --daemon --stats --rate --exact --thresholds --persistent-conn --tun-info --nosort -n --numeric --json' ;;
        -l|--list) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6 -c --connection --timeout --daemon --stats --rate --exact --thresholds --persistent-conn --tun-info --nosort -n --numeric --json' ;;
        -Z|--zero) words='-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -6 --ipv6' ;;
        --set) words='' ;;
        --start-daemon) words='--syncid --sync-maxlen --mcast-interface --mcast-group --mcast-port --mcast-ttl' ;;
        --stop-daemon) words='--syncid' ;;
        -h|--help) words='' ;;
        -v|--version) words='' ;;
        esac
        ((COMP_CWORD == 1)) && words='-A --add-service -E --edit-service -D --delete-service -C --clear -R --restore -S --save -a --add-server -e --edit-server -d --delete-server -L --list -l --list -Z --zero --set --start-daemon --stop-daemon -h --help -v --version' ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _ipvsadm ipvsadm
