# A client made with Mojolicious, driven by a test: README.md beside it has the orders and events.
#
#   perl mojolicious_client.pl URL deflate=0|1 [protocols=NAME,NAME]
use strict;
use warnings;

use Mojo::IOLoop;
use Mojo::IOLoop::Stream;
use Mojo::UserAgent;
use Mojo::WebSocket qw(WS_BINARY WS_CONTINUATION WS_PING WS_PONG WS_TEXT);

STDOUT->autoflush(1);
my ($url, @words) = @ARGV;
my %option = map { split /=/, $_, 2 } @words;

sub say_event { print join(' ', @_), "\n" }

sub obey {
    my ($client, $order, @words) = @_;
    if ($order eq 'close') {
        my $reason = pack 'H*', $words[1];
        utf8::decode($reason);
        $client->finish($words[0], $reason);
    } elsif ($order eq 'ping') {
        $client->send([1, 0, 0, 0, WS_PING, pack 'H*', $words[0]]);
    } else {
        my ($kind, @parts) = ($words[0], map { pack 'H*', $_ } @words[1 .. $#words]);
        return $client->send({$kind => $parts[0]}) if @parts == 1;
        for my $i (0 .. $#parts) {
            my $op = $i ? WS_CONTINUATION : $kind eq 'text' ? WS_TEXT : WS_BINARY;
            $client->send([$i == $#parts ? 1 : 0, 0, 0, 0, $op, $parts[$i]]);
        }
    }
}

my $ua = Mojo::UserAgent->new(max_redirects => 0, inactivity_timeout => 0);
my %headers = $option{deflate} ? ('Sec-WebSocket-Extensions' => 'permessage-deflate') : ();
my @protocols = $option{protocols} ? [split /,/, $option{protocols}] : ();
my $input = Mojo::IOLoop::Stream->new(\*STDIN);
$input->timeout(0);
$input->on(close => sub { exit 0 });

$ua->websocket($url => {%headers} => @protocols => sub {
    my ($agent, $client) = @_;
    unless ($client->is_websocket) {
        my $error = $client->error || {message => 'the handshake failed'};
        return say_event($error->{code} ? ('refused', $error->{code}) : ('failed', unpack 'H*', $error->{message}));
    }
    $client->max_websocket_size(1 << 28);
    $client->on(text => sub { say_event('message', 'text', unpack 'H*', $_[1]) });
    $client->on(binary => sub { say_event('message', 'binary', unpack 'H*', $_[1]) });
    $client->on(frame => sub { say_event('pong', unpack 'H*', $_[1][5]) if $_[1][4] == WS_PONG });
    $client->on(finish => sub {
        my $reason = $_[2] // '';
        utf8::encode($reason);
        say_event('close', $_[1] // 1005, unpack 'H*', $reason);
    });
    my $extensions = $client->res->headers->sec_websocket_extensions // '';
    say_event('open', unpack('H*', $extensions), unpack('H*', $client->protocol // ''));
    my $rest = '';
    $input->on(read => sub {
        $rest .= $_[1];
        obey($client, split / /, $1, -1) while $rest =~ s/^([^\n]*)\n//;
    });
    $input->start;
});
Mojo::IOLoop->start;
