#include <stdio.h>

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "r") : stdin;
    int lines = 0, c;

    if (!file) {
        perror(argv[1]);
        return 1;
    }
    while ((c = getc(file)) != EOF)
        lines += c == '\n';
    printf("lines " VERSION ": %d\n", lines);
    return 0;
}
