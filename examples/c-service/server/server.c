/* Answers every HTTP request with a greeting for the path that was asked for. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <greeting.h>

static void answer(int client)
{
    char request[2048], name[256] = "stranger", body[512], head[256];
    ssize_t got = read(client, request, sizeof request - 1);
    if (got <= 0)
        return;
    request[got] = '\0';
    sscanf(request, "%*s /%255[A-Za-z]", name);
    int length = greeting(body, sizeof body, name);
    int top = snprintf(head, sizeof head,
                       "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                       "Content-Length: %d\r\nConnection: close\r\n\r\n", length);
    if (write(client, head, top) == top && write(client, body, length) != length)
        perror("write");
}

int main(int count, char **arguments)
{
    int port = count > 1 ? atoi(arguments[1]) : 8070, yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("cannot listen");
        return 1;
    }
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        answer(client);
        close(client);
    }
}
