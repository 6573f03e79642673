/* Load for what connects a client and a server: small datagrams, and requests over TCP, counted at both ends.
 *
 *     load serve PORT                            answers requests and counts datagrams until its input ends
 *     load udp ADDRESS PORT SECONDS RATE         sends datagrams; rate 0 is as fast as possible
 *     load rr ADDRESS PORT SECONDS CONNECTIONS   asks again and again on standing connections
 *     load crr ADDRESS PORT SECONDS CLIENTS      each request on a connection of its own
 *     load ping ADDRESS SECONDS                  echo requests, each when the last one is answered
 *
 * Each writes one line of JSON at its end. */
#include <signal.h>
#include <string.h>

#include "load.h"

int main(int count, char **words)
{
	const char *verb = count > 1 ? words[1] : "";
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(verb, "serve") && count == 3)
		return serve((uint16_t)atoi(words[2]));
	if (!strcmp(verb, "ping") && count == 4)
		return ping(words[2], atof(words[3]));
	if (count == 6) {
		uint16_t port = (uint16_t)atoi(words[3]);
		double seconds = atof(words[4]);
		if (!strcmp(verb, "udp"))
			return send_datagrams(words[2], port, seconds, atof(words[5]));
		if (!strcmp(verb, "rr") || !strcmp(verb, "crr"))
			return ask(words[2], port, seconds, (unsigned)atoi(words[5]), verb[0] == 'c');
	}
	fprintf(stderr, "usage: load serve PORT | load ping ADDRESS SECONDS | "
			"load udp|rr|crr ADDRESS PORT SECONDS RATE|CONNECTIONS\n");
	return 2;
}
