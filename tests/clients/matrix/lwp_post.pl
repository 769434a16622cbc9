#!/usr/bin/env perl
# One POST with LWP.

use strict;
use warnings;
use JSON::PP;
use LWP::UserAgent;

my $agent = LWP::UserAgent->new(timeout => 60);
my $answer = $agent->post($ARGV[-1], 'Content-Type' => 'application/json', Content => '{"video": "intro.mp4"}');
die $answer->status_line . "\n" . $answer->decoded_content unless $answer->is_success;
print encode_json({
    client => 'LWP',
    status => $answer->code + 0,
    attempts => $answer->header('Samekey-Attempts') // '',
    stop => $answer->header('Samekey-Stop') // '',
    id => decode_json($answer->decoded_content)->{id},
    key => $answer->header('Idempotency-Key') // '',
}), "\n";
