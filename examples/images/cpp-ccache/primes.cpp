#include <cstdlib>
#include <iostream>
#include <vector>

int main(int argc, char **argv)
{
    const std::size_t limit = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10;
    std::vector<bool> composite(limit);
    std::vector<std::size_t> primes;
    for (std::size_t n = 2; n < limit; ++n) {
        if (composite[n])
            continue;
        primes.push_back(n);
        for (std::size_t multiple = n * n; multiple < limit; multiple += n)
            composite[multiple] = true;
    }
    std::cout << primes.size() << " primes below " << limit << ", the last is " << primes.back() << "\n";
}
